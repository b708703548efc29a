package image_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"horcrux/services/storage/backend"
	"horcrux/services/storage/image"
)

// header is a qcow2 header, changed as a case wants it.
func header(change func(h []byte)) []byte {
	h := make([]byte, 112)
	copy(h, "QFI\xfb")
	binary.BigEndian.PutUint32(h[4:], 3)
	binary.BigEndian.PutUint64(h[24:], 1<<20)
	if change != nil {
		change(h)
	}
	return h
}

func TestQCOW2Size(t *testing.T) {
	for name, c := range map[string]struct {
		bytes []byte
		want  int64 // 0: refused
	}{
		"version 3":           {header(nil), 1 << 20},
		"version 2":           {header(func(h []byte) { h[7] = 2; h[79] = 1 << 2 })[:72], 1 << 20},
		"version 1":           {header(func(h []byte) { h[7] = 1 }), 0},
		"version 4":           {header(func(h []byte) { h[7] = 4 }), 0},
		"backing file":        {header(func(h []byte) { h[15] = 104 }), 0},
		"encrypted":           {header(func(h []byte) { h[35] = 2 }), 0},
		"external data file":  {header(func(h []byte) { h[79] = 1 << 2 }), 0},
		"empty disk":          {header(func(h []byte) { h[29] = 0 }), 0},
		"size beyond any":     {header(func(h []byte) { h[24] = 0xff }), 0},
		"cut header":          {header(nil)[:40], 0},
		"another file":        {bytes.Repeat([]byte{0}, 512), 0},
		"empty file":          {nil, 0},
		"the magic alone":     {[]byte("QFI\xfb"), 0},
		"whole cluster, v2":   {append(header(func(h []byte) { h[7] = 2 }), make([]byte, 400)...), 1 << 20},
		"bit 2 counts in v3!": {header(func(h []byte) { h[79] = 0xff }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := image.QCOW2Size(bytes.NewReader(c.bytes))
			if got != c.want || (err == nil) != (c.want != 0) {
				t.Errorf("%d, %v; want %d", got, err, c.want)
			}
		})
	}
}

func FuzzQCOW2Size(f *testing.F) {
	f.Add(header(nil))
	f.Add([]byte("QFI\xfb"))
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := image.QCOW2Size(bytes.NewReader(b))
		if err == nil && (size <= 0 || binary.BigEndian.Uint64(b[8:]) != 0) {
			t.Errorf("accepted %d bytes of % x", size, b)
		}
	})
}

func TestLibraryOpen(t *testing.T) {
	base := t.TempDir()
	images, outside := filepath.Join(base, "images"), filepath.Join(base, "outside")
	must(t, os.MkdirAll(filepath.Join(images, "debian"), 0o755))
	must(t, os.Mkdir(outside, 0o755))
	write := func(path string, b []byte) string {
		must(t, os.WriteFile(path, b, 0o644))
		return path
	}
	secret := write(filepath.Join(outside, "secret"), []byte("secret"))
	raw := write(filepath.Join(images, "debian", "disk.raw"), make([]byte, 1000))
	qcow2 := write(filepath.Join(images, "disk.qcow2"), header(nil))
	backed := write(filepath.Join(images, "backed"), header(func(h []byte) { h[15] = 104 }))
	empty := write(filepath.Join(images, "empty"), nil)
	must(t, os.Symlink(secret, filepath.Join(images, "leads-out")))
	must(t, os.Symlink(outside, filepath.Join(images, "dir-leads-out")))
	must(t, os.Symlink("debian/disk.raw", filepath.Join(images, "stays-in")))
	must(t, os.Symlink(images, filepath.Join(base, "alias")))
	must(t, syscall.Mkfifo(filepath.Join(images, "fifo"), 0o644))
	alias := filepath.Join(base, "alias")

	for name, c := range map[string]struct {
		dirs []string
		path string
		want error
		size int64
		as   string
	}{
		"raw, in whole sectors":         {path: raw, size: 1024, as: backend.Raw},
		"qcow2 by its header":           {path: qcow2, size: 1 << 20, as: backend.QCOW2},
		"link that stays in":            {path: filepath.Join(images, "stays-in"), size: 1024, as: backend.Raw},
		"library by a link":             {dirs: []string{alias}, path: filepath.Join(alias, "disk.qcow2"), size: 1 << 20, as: backend.QCOW2},
		"library by its other name":     {dirs: []string{alias}, path: qcow2, size: 1 << 20, as: backend.QCOW2},
		"second directory":              {dirs: []string{outside, images}, path: qcow2, size: 1 << 20, as: backend.QCOW2},
		"no directories":                {dirs: []string{}, path: qcow2, want: backend.ErrInvalid},
		"outside":                       {path: secret, want: backend.ErrInvalid},
		"prefix is no parent":           {path: images + "-not/disk", want: backend.ErrInvalid},
		"the directory itself":          {path: images, want: backend.ErrInvalid},
		"traversal":                     {path: images + "/../outside/secret", want: backend.ErrInvalid},
		"relative":                      {path: "disk.qcow2", want: backend.ErrInvalid},
		"nothing":                       {path: "", want: backend.ErrInvalid},
		"link that leads out":           {path: filepath.Join(images, "leads-out"), want: backend.ErrInvalid},
		"directory link that leads out": {path: filepath.Join(images, "dir-leads-out", "secret"), want: backend.ErrInvalid},
		"directory":                     {path: filepath.Join(images, "debian"), want: backend.ErrInvalid},
		"FIFO, without waiting":         {path: filepath.Join(images, "fifo"), want: backend.ErrInvalid},
		"backing file":                  {path: backed, want: backend.ErrInvalid},
		"empty":                         {path: empty, want: backend.ErrInvalid},
		"missing":                       {path: filepath.Join(images, "missing"), want: backend.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			dirs := c.dirs
			if dirs == nil {
				dirs = []string{images}
			}
			img, err := image.Library{Dirs: dirs}.Open(c.path)
			if c.want != nil {
				if !errors.Is(err, c.want) {
					t.Errorf("error %v, want %v", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if img.SizeBytes != c.size || img.Format != c.as {
				t.Errorf("%s of %d bytes, want %s of %d", img.Format, img.SizeBytes, c.as, c.size)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
