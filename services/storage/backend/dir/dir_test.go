package dir_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"horcrux/pkg/events"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/backendtest"
	"horcrux/services/storage/backend/dir"
	"horcrux/services/storage/image"
)

const (
	stamp = ".horcrux-pool"
	mib   = backendtest.MiB
)

func TestMain(m *testing.M) {
	if path := os.Getenv("HORCRUX_TEST_MAKER"); path != "" {
		makeVolumes(path)
	}
	goleak.VerifyTestMain(m)
}

func needQemuImg(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip("real: qemu-img: is not installed")
	}
}

func TestConformance(t *testing.T) {
	needQemuImg(t)
	backendtest.Run(t, func(t *testing.T) backendtest.Place {
		base := t.TempDir()
		img := filepath.Join(base, "base.img")
		must(t, os.WriteFile(img, bytes.Repeat([]byte("horcrux\n"), mib/8), 0o600))
		pool := backend.Pool{ID: events.NewID(), Path: filepath.Join(base, "volumes")}
		return backendtest.Place{
			Driver: dir.Driver{Images: image.Library{Dirs: []string{base}}}, Pool: pool, Image: img,
			Vanish: func(t *testing.T) { must(t, os.Rename(pool.Path, pool.Path+"-away")) },
		}
	})
}

// place is a pool in a directory of its own.
type place struct {
	backend.Backend
	pool backend.Pool
	base string
}

func newPlace(t *testing.T) place {
	t.Helper()
	return newPlaceAt(t, t.TempDir())
}

func newPlaceAt(t *testing.T, base string) place {
	t.Helper()
	p := place{base: base, pool: backend.Pool{ID: events.NewID(), Path: filepath.Join(base, "volumes")}}
	d := dir.Driver{Images: image.Library{Dirs: []string{base}}}
	must(t, d.Init(t.Context(), p.pool))
	b, err := d.Open(p.pool)
	must(t, err)
	p.Backend = b
	return p
}

// files are the names in the pool besides its stamp.
func (p place) files(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(p.pool.Path)
	must(t, err)
	var names []string
	for _, e := range entries {
		if e.Name() != stamp {
			names = append(names, e.Name())
		}
	}
	return names
}

func raw(size int64) backend.Spec {
	return backend.Spec{ID: events.NewID(), SizeBytes: size, Format: backend.Raw, Thin: true}
}

func TestInit(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(path string) error
		want    error
	}{
		"new":                    {func(string) error { return nil }, nil},
		"empty directory":        {func(p string) error { return os.Mkdir(p, 0o700) }, nil},
		"new file system":        {func(p string) error { return os.MkdirAll(filepath.Join(p, "lost+found"), 0o700) }, nil},
		"interrupted init":       {func(p string) error { return write(p, stamp+".partial", "0190") }, nil},
		"somebody's directory":   {func(p string) error { return write(p, "thesis.txt", "") }, backend.ErrConflict},
		"another pool":           {func(p string) error { return write(p, stamp, uuid.NewString()+"\n") }, backend.ErrAlreadyExists},
		"a stamp that is none":   {func(p string) error { return write(p, stamp, "hello") }, backend.ErrUnavailable},
		"a file":                 {func(p string) error { return os.WriteFile(p, nil, 0o600) }, backend.ErrUnavailable},
		"parent is not there":    {func(p string) error { return os.Remove(filepath.Dir(p)) }, backend.ErrUnavailable},
		"a link to nothing else": {func(p string) error { return os.Symlink("nowhere", p) }, backend.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			parent := filepath.Join(t.TempDir(), "data")
			must(t, os.Mkdir(parent, 0o700))
			pool := backend.Pool{ID: events.NewID(), Path: filepath.Join(parent, "volumes")}
			must(t, c.prepare(pool.Path))
			if err := (dir.Driver{}).Init(t.Context(), pool); !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			got, err := os.ReadFile(filepath.Join(pool.Path, stamp))
			if err != nil || string(got) != pool.ID.String()+"\n" {
				t.Errorf("stamp %q, %v", got, err)
			}
		})
	}
}

func write(dir, name, text string) error {
	return errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
}

// An unmounted file system leaves its empty mount point: what would be written there is lost from sight at the mount.
func TestEmptyMountPointIsNotThePool(t *testing.T) {
	p := newPlace(t)
	must(t, os.Rename(p.pool.Path, p.pool.Path+"-unmounted"))
	must(t, os.Mkdir(p.pool.Path, 0o700))
	_, err := p.Create(t.Context(), raw(mib))
	wantErr(t, err, backend.ErrUnavailable)
	if files := p.files(t); len(files) != 0 {
		t.Errorf("made %v", files)
	}
	must(t, os.Remove(p.pool.Path))
	must(t, os.Rename(p.pool.Path+"-unmounted", p.pool.Path))
	if _, err := p.Create(t.Context(), raw(mib)); err != nil {
		t.Errorf("after the pool came back: %v", err)
	}
}

func TestAnotherPoolInItsPlaceIsNotThePool(t *testing.T) {
	p := newPlace(t)
	must(t, os.WriteFile(filepath.Join(p.pool.Path, stamp), []byte(uuid.NewString()+"\n"), 0o600))
	_, err := p.Create(t.Context(), raw(mib))
	wantErr(t, err, backend.ErrUnavailable)
	if files := p.files(t); len(files) != 0 {
		t.Errorf("made %v", files)
	}
}

func TestModes(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	p := newPlace(t)
	v, err := p.Create(t.Context(), raw(mib))
	must(t, err)
	for path, want := range map[string]os.FileMode{p.pool.Path: 0o711, v.Path: 0o600} {
		info, err := os.Stat(path)
		must(t, err)
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s is %o, want %o", path, got, want)
		}
	}
}

func TestForeignFilesAreLeftOutAndLeftAlone(t *testing.T) {
	p := newPlace(t)
	id := events.NewID()
	foreign := []string{"notes.txt", "web-1.qcow2", id.String(), id.String() + ".vmdk", strings.ToUpper(id.String()) + ".raw", "{" + id.String() + "}.raw"}
	for _, name := range foreign {
		must(t, os.WriteFile(filepath.Join(p.pool.Path, name), []byte("x"), 0o600))
	}
	list, err := p.Volumes(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("volumes %+v, %v", list, err)
	}
	must(t, p.Delete(t.Context(), id))
	if files := p.files(t); len(files) != len(foreign) {
		t.Errorf("files %v, want %v", files, foreign)
	}
}

func TestThinVolumeTakesNoSpace(t *testing.T) {
	p := newPlace(t)
	v, err := p.Create(t.Context(), raw(1<<40))
	if err != nil || v.SizeBytes != 1<<40 || v.Allocated > mib {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestLeftovers(t *testing.T) {
	spec := raw(mib)
	for name, c := range map[string]struct {
		act  func(p place) error
		want []string
	}{
		"a create clears its own":  {func(p place) error { _, err := p.Create(t.Context(), spec); return err }, []string{spec.ID.String() + ".raw"}},
		"a delete clears its own":  {func(p place) error { return p.Delete(t.Context(), spec.ID) }, nil},
		"they are no volumes":      {func(p place) error { _, err := p.Volume(t.Context(), spec.ID); return ignore(err, backend.ErrNotFound) }, []string{"dead"}},
		"others' are not its own ": {func(p place) error { return p.Delete(t.Context(), events.NewID()) }, []string{"dead"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			dead := spec.ID.String() + ".DEAD.partial"
			live := spec.ID.String() + ".LIVE.partial"
			must(t, os.WriteFile(filepath.Join(p.pool.Path, dead), []byte("half"), 0o600))
			f, err := os.Create(filepath.Join(p.pool.Path, live))
			must(t, err)
			defer f.Close()
			must(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
			must(t, c.act(p))
			var want []string
			for _, w := range c.want {
				want = append(want, strings.ReplaceAll(w, "dead", dead))
			}
			want = append(want, live)
			if files := p.files(t); !sameSet(files, want) {
				t.Errorf("files %v, want %v", files, want)
			}
		})
	}
}

func TestImages(t *testing.T) {
	needQemuImg(t)
	p := newPlace(t)
	content := bytes.Repeat([]byte("all the world's a stage\n"), 3*mib/24)
	content = append(content, make([]byte, 3*mib-len(content))...)
	rawImage, qcow2Image := filepath.Join(p.base, "base.raw"), filepath.Join(p.base, "base.qcow2")
	must(t, os.WriteFile(rawImage, content, 0o644))
	run(t, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", rawImage, qcow2Image)

	for _, img := range []string{rawImage, qcow2Image} {
		for _, format := range []string{backend.Raw, backend.QCOW2} {
			for _, thin := range []bool{true, false} {
				t.Run(filepath.Ext(img)+" to "+format+map[bool]string{true: " thin", false: " reserved"}[thin], func(t *testing.T) {
					spec := backend.Spec{ID: events.NewID(), SizeBytes: 8 * mib, Format: format, Thin: thin, Image: img}
					v, err := p.Create(t.Context(), spec)
					must(t, err)
					flat := filepath.Join(p.base, "flat")
					run(t, "qemu-img", "convert", "-f", format, "-O", "raw", v.Path, flat)
					got, err := os.ReadFile(flat)
					must(t, err)
					if want := append(bytes.Clone(content), make([]byte, 5*mib)...); !bytes.Equal(got, want) {
						t.Errorf("the volume's bytes are not the image's and then zeros (%d bytes)", len(got))
					}
					if !thin && v.Allocated < spec.SizeBytes {
						t.Errorf("takes %d bytes of %d reserved", v.Allocated, spec.SizeBytes)
					}
				})
			}
		}
	}
}

func TestRefusedImageLeavesNothing(t *testing.T) {
	needQemuImg(t)
	p := newPlace(t)
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, make([]byte, mib), 0o600))
	backed := filepath.Join(p.base, "backed.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", backed)
	broken := filepath.Join(p.base, "broken.qcow2")
	run(t, "qemu-img", "create", "-q", "-f", "qcow2", broken, "1M")
	f, err := os.OpenFile(broken, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte{40}, 23) // clusters of 2^40 bytes
	must(t, errors.Join(err, f.Close()))
	for _, img := range []string{backed, secret, broken, p.base + "/../secret"} {
		spec := raw(mib)
		spec.Image = img
		_, err := p.Create(t.Context(), spec)
		wantErr(t, err, backend.ErrInvalid)
	}
	if files := p.files(t); len(files) != 0 {
		t.Errorf("left %v", files)
	}
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

func sameSet(a, b []string) bool {
	have := map[string]int{}
	for _, s := range a {
		have[s]++
	}
	for _, s := range b {
		have[s]--
	}
	for _, n := range have {
		if n != 0 {
			return false
		}
	}
	return true
}

func ignore(err, expected error) error {
	if errors.Is(err, expected) {
		return nil
	}
	return err
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v, want %v", err, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
