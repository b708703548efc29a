package dir_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"horcrux/pkg/events"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/dir"
	"horcrux/services/storage/image"
)

func TestFullFileSystem(t *testing.T) {
	needQemuImg(t)
	p := newPlaceAt(t, mount(t, "size=4m"))
	noise := filepath.Join(t.TempDir(), "noise")
	b := make([]byte, 8*mib)
	for i := range b {
		b[i] = byte(i*7 + i>>8 + 1)
	}
	must(t, os.WriteFile(noise, b, 0o600))
	d := dir.Driver{Images: image.Library{Dirs: []string{filepath.Dir(noise)}}}
	full, err := d.Open(p.pool)
	must(t, err)
	for _, format := range []string{backend.Raw, backend.QCOW2} {
		for _, spec := range []backend.Spec{
			{ID: events.NewID(), SizeBytes: 8 * mib, Format: format, Thin: true, Image: noise},
			{ID: events.NewID(), SizeBytes: 8 * mib, Format: format, Thin: false},
		} {
			_, err := full.Create(t.Context(), spec)
			wantErr(t, err, backend.ErrExhausted)
		}
	}
	if files := p.files(t); len(files) != 0 {
		t.Errorf("left %v", files)
	}
	if _, err := full.Create(t.Context(), raw(mib)); err != nil {
		t.Errorf("a volume that fits: %v", err)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	base := mount(t, "size=4m")
	p := newPlaceAt(t, base)
	v, err := p.Create(t.Context(), raw(mib))
	must(t, err)
	must(t, unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = p.Create(t.Context(), raw(mib))
	wantErr(t, err, backend.ErrPermission)
	wantErr(t, p.Delete(t.Context(), v.ID), backend.ErrPermission)
	if got, err := p.Volume(t.Context(), v.ID); err != nil || got != v {
		t.Errorf("reading: %+v, %v", got, err)
	}
}

// mount mounts a small file system in memory for the time of a test.
func mount(t *testing.T, options string) string {
	t.Helper()
	path := t.TempDir()
	if err := unix.Mount("horcrux-test", path, "tmpfs", 0, options); err != nil {
		t.Skipf("real: mount: no tmpfs: %v", err)
	}
	unmountAfter(t, path)
	return path
}

func unmountAfter(t *testing.T, path string) {
	t.Cleanup(func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", path, err)
		}
	})
}

// On a file system that shares blocks, volumes start with the bytes of an image without taking their space: more of
// them fit than there is room for copies.
func TestImageIsShared(t *testing.T) {
	if _, err := exec.LookPath("mkfs.btrfs"); err != nil {
		t.Skip("real: btrfs: mkfs.btrfs is not installed")
	}
	base, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	must(t, os.WriteFile(disk, nil, 0o600))
	must(t, os.Truncate(disk, 128*mib))
	run(t, "mkfs.btrfs", "-q", disk)
	if out, err := exec.CommandContext(t.Context(), "mount", "-o", "loop", disk, base).CombinedOutput(); err != nil {
		t.Skipf("real: mount: no btrfs: %v: %s", err, out)
	}
	unmountAfter(t, base)
	p := newPlaceAt(t, base)
	img := filepath.Join(base, "noise.raw")
	content := make([]byte, 16*mib)
	_, err := rand.NewChaCha8([32]byte{}).Read(content)
	must(t, err)
	must(t, os.WriteFile(img, content, 0o600))
	for range 8 {
		v, err := p.Create(t.Context(), backend.Spec{ID: events.NewID(), SizeBytes: 32 * mib, Format: backend.Raw, Thin: true, Image: img})
		must(t, err)
		got, err := os.ReadFile(v.Path)
		must(t, err)
		if !bytes.Equal(got[:len(content)], content) || !bytes.Equal(got[len(content):], make([]byte, 16*mib)) {
			t.Fatal("the volume's bytes are not the image's and then zeros")
		}
	}
}
