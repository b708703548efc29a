package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"horcrux/services/storage/backend"
	"horcrux/services/storage/image"
)

var formats = []string{backend.Raw, backend.QCOW2}

// Backend is a directory of volumes.
type Backend struct {
	pool   backend.Pool
	images image.Library
}

var _ backend.Backend = (*Backend)(nil)

// Capabilities are all that a directory has; qcow2 and images need qemu-img, without which they are ErrUnsupported.
func (b *Backend) Capabilities() backend.Capabilities {
	return backend.Capabilities{Formats: formats, Thin: true, Thick: true, Images: true}
}

// enter opens the pool's directory if it is the pool's.
func (b *Backend) enter(ctx context.Context) (*os.Root, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(b.pool.Path)
	if err != nil {
		return nil, classify("open pool", err)
	}
	id, err := readStamp(root)
	if err == nil && id != b.pool.ID {
		err = fmt.Errorf("%w: the directory is pool %s", backend.ErrUnavailable, id)
	} else if err != nil {
		err = classify("read stamp", err)
	}
	if err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// Create implements backend.Backend.
func (b *Backend) Create(ctx context.Context, spec backend.Spec) (_ backend.Volume, err error) {
	if err := spec.Validate(b.Capabilities()); err != nil {
		return backend.Volume{}, err
	}
	root, err := b.enter(ctx)
	if err != nil {
		return backend.Volume{}, err
	}
	defer root.Close()
	if v, err := b.find(root, spec.ID); !errors.Is(err, backend.ErrNotFound) {
		return b.adopt(root, spec, v, err)
	}
	if err := sweep(root, spec.ID); err != nil {
		return backend.Volume{}, classify("create volume", err)
	}
	p, err := newPartial(root, spec.ID)
	if err != nil {
		return backend.Volume{}, classify("create volume", err)
	}
	defer func() {
		if derr := p.discard(); derr != nil && err == nil { // the volume is there; a sweep removes its other name
			err = fmt.Errorf("create volume: %w: %w", backend.ErrUnknown, derr)
		}
	}()
	if err := b.fill(ctx, p.File, spec); err != nil {
		return backend.Volume{}, err
	}
	if err := p.publish(fileName(spec.ID, spec.Format)); err != nil && !errors.Is(err, fs.ErrExist) {
		return backend.Volume{}, classify("publish volume", err)
	}
	v, err := b.find(root, spec.ID)
	return b.adopt(root, spec, v, err)
}

// adopt takes the volume that is there for the one that was asked for.
func (b *Backend) adopt(root *os.Root, spec backend.Spec, v backend.Volume, err error) (backend.Volume, error) {
	if err != nil {
		return backend.Volume{}, err
	}
	if v.Format != spec.Format || v.SizeBytes != spec.SizeBytes {
		return backend.Volume{}, fmt.Errorf("%w: as %s of %d bytes", backend.ErrAlreadyExists, v.Format, v.SizeBytes)
	}
	if err := syncDir(root); err != nil {
		return backend.Volume{}, fmt.Errorf("%w: %w", backend.ErrUnknown, err)
	}
	return v, nil
}

// fill gives an empty file the volume's format, size and first bytes.
func (b *Backend) fill(ctx context.Context, f *os.File, spec backend.Spec) error {
	if !spec.Thin {
		// The reservation below fails too, but only after it has taken what there is from everybody else.
		if u, err := usage(f); err != nil {
			return err
		} else if u.Available < spec.SizeBytes {
			return fmt.Errorf("%w: %d bytes wanted, %d available", backend.ErrExhausted, spec.SizeBytes, u.Available)
		}
	}
	preallocation := "off"
	if !spec.Thin {
		preallocation = "falloc"
	}
	size := strconv.FormatInt(spec.SizeBytes, 10)
	if spec.Image != "" {
		img, err := b.images.Open(spec.Image)
		if err != nil {
			return err
		}
		defer img.Close()
		if img.SizeBytes > spec.SizeBytes {
			return fmt.Errorf("%w: image of %d bytes is larger than the volume", backend.ErrInvalid, img.SizeBytes)
		}
		if err := copyImage(ctx, f, img, spec, preallocation); err != nil {
			return err
		}
		if spec.Format == backend.QCOW2 && img.SizeBytes < spec.SizeBytes {
			return qemuImg(ctx, []*os.File{f}, "resize", "-q", "-f", "qcow2", "--preallocation="+preallocation, fd(0), size)
		}
	} else if spec.Format == backend.QCOW2 {
		return qemuImg(ctx, []*os.File{f}, "create", "-q", "-f", "qcow2", "-o", "preallocation="+preallocation, fd(0), size)
	}
	if spec.Format == backend.QCOW2 {
		return nil
	}
	if err := f.Truncate(spec.SizeBytes); err != nil {
		return classify("size volume", err)
	}
	if !spec.Thin {
		return classify("reserve volume", unix.Fallocate(int(f.Fd()), 0, 0, spec.SizeBytes))
	}
	return nil
}

// copyImage shares the image's blocks where the file system can, and copies them where it cannot.
func copyImage(ctx context.Context, f *os.File, img *image.Image, spec backend.Spec, preallocation string) error {
	if spec.Thin && img.Format == spec.Format {
		if err := unix.IoctlFileClone(int(f.Fd()), int(img.Fd())); err == nil {
			return nil
		}
	}
	args := []string{"convert", "-q", "-f", img.Format, "-O", spec.Format}
	if spec.Format == backend.QCOW2 {
		args = append(args, "-o", "preallocation="+preallocation)
	}
	return qemuImg(ctx, []*os.File{img.File, f}, append(args, fd(0), fd(1))...)
}

// Resize implements backend.Backend. The file of a guest that runs is QEMU's, which grows it itself and locks it.
func (b *Backend) Resize(ctx context.Context, id uuid.UUID, sizeBytes int64) error {
	if sizeBytes <= 0 || sizeBytes%512 != 0 {
		return fmt.Errorf("%w: size %d is not a positive multiple of 512", backend.ErrInvalid, sizeBytes)
	}
	root, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	v, err := b.find(root, id)
	if err != nil || v.SizeBytes >= sizeBytes {
		return err
	}
	f, err := root.OpenFile(fileName(id, v.Format), os.O_RDWR, 0)
	if err != nil {
		return classify("open volume", err)
	}
	defer f.Close()
	if err := qemuImg(ctx, []*os.File{f}, "resize", "-q", "-f", v.Format, fd(0), strconv.FormatInt(sizeBytes, 10)); err != nil {
		return err
	}
	return classify("sync volume", f.Sync())
}

// Delete implements backend.Backend.
func (b *Backend) Delete(ctx context.Context, id uuid.UUID) error {
	root, err := b.enter(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := sweep(root, id); err != nil {
		return classify("delete volume", err)
	}
	for _, format := range formats {
		if err := remove(root, fileName(id, format)); err != nil {
			return classify("delete volume", err)
		}
	}
	return syncDir(root)
}

// Volume implements backend.Backend.
func (b *Backend) Volume(ctx context.Context, id uuid.UUID) (backend.Volume, error) {
	root, err := b.enter(ctx)
	if err != nil {
		return backend.Volume{}, err
	}
	defer root.Close()
	return b.find(root, id)
}

// Volumes implements backend.Backend.
func (b *Backend) Volumes(ctx context.Context) ([]backend.Volume, error) {
	root, err := b.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return nil, classify("list pool", err)
	}
	var volumes []backend.Volume
	for _, e := range entries {
		base, format, _ := strings.Cut(e.Name(), ".")
		id, err := uuid.Parse(base)
		if err != nil || e.Name() != fileName(id, format) || !slices.Contains(formats, format) {
			continue
		}
		v, err := b.stat(root, id, format)
		switch {
		case errors.Is(err, backend.ErrNotFound): // deleted since the directory was read
		case err != nil:
			return nil, err
		default:
			volumes = append(volumes, v)
		}
	}
	slices.SortFunc(volumes, func(a, b backend.Volume) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return volumes, nil
}

// Usage implements backend.Backend.
func (b *Backend) Usage(ctx context.Context) (backend.Usage, error) {
	root, err := b.enter(ctx)
	if err != nil {
		return backend.Usage{}, err
	}
	defer root.Close()
	d, err := root.Open(".")
	if err != nil {
		return backend.Usage{}, classify("open pool", err)
	}
	defer d.Close()
	return usage(d)
}

func usage(f *os.File) (backend.Usage, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return backend.Usage{}, classify("ask for space", err)
	}
	return backend.Usage{
		Capacity:  int64(st.Blocks) * st.Frsize,
		Available: int64(st.Bavail) * st.Frsize,
	}, nil
}

func fileName(id uuid.UUID, format string) string { return id.String() + "." + format }

func (b *Backend) find(root *os.Root, id uuid.UUID) (backend.Volume, error) {
	for _, format := range formats {
		if v, err := b.stat(root, id, format); !errors.Is(err, backend.ErrNotFound) {
			return v, err
		}
	}
	return backend.Volume{}, fmt.Errorf("volume %s: %w", id, backend.ErrNotFound)
}

// stat looks at a volume's file. Its format is what its name says: the first bytes of a raw volume are the guest's.
func (b *Backend) stat(root *os.Root, id uuid.UUID, format string) (backend.Volume, error) {
	name := fileName(id, format)
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return backend.Volume{}, fmt.Errorf("%s: %w", name, backend.ErrNotFound)
	}
	if err != nil {
		return backend.Volume{}, classify("look at volume", err)
	}
	if !info.Mode().IsRegular() {
		return backend.Volume{}, fmt.Errorf("%w: %s is no regular file", backend.ErrConflict, name)
	}
	v := backend.Volume{ID: id, Type: "file", Path: filepath.Join(b.pool.Path, name), Format: format, SizeBytes: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		v.Allocated = st.Blocks * 512
	}
	if format != backend.QCOW2 {
		return v, nil
	}
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return backend.Volume{}, fmt.Errorf("%s: %w", name, backend.ErrNotFound)
	}
	if err != nil {
		return backend.Volume{}, classify("open volume", err)
	}
	defer f.Close()
	if v.SizeBytes, err = image.QCOW2Size(f); err != nil {
		return backend.Volume{}, fmt.Errorf("%w: %s: %w", backend.ErrConflict, name, err)
	}
	return v, nil
}
