// Package dir keeps volumes as files in a directory: <pool>/<volume id>.raw and <pool>/<volume id>.qcow2.
//
// A file appears under its name only when it is whole: it is made as <volume id>.<random>.partial, synced, and linked.
// The id in the name is the volume's identity; what an interrupted create leaves is recognised by its name and by the
// lock that its maker no longer holds. The file .horcrux-pool holds the pool's id: a directory without it, such as the
// mount point of a file system that is not mounted, is not the pool.
//
// The directory is 0711 and files are 0600, owned by the user of the service. Run as root, libvirt gives a disk to the
// user of its QEMU while the guest runs (dynamic_ownership, on by default), who needs only to pass through the
// directory and its parents; run as anybody else, QEMU is the same user.
//
// Calls of the file system cannot be cancelled: on a network file system whose server is gone they take its time-out.
package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"horcrux/services/storage/backend"
	"horcrux/services/storage/image"
)

const (
	stamp        = ".horcrux-pool"
	stampPartial = stamp + ".partial"
	poolMode     = 0o711
	fileMode     = 0o600
)

// Driver makes and opens pools of type dir.
type Driver struct {
	Images image.Library
}

var _ backend.Driver = Driver{}

// Init makes the directory where only its parent exists, or takes an empty one, and stamps it.
func (Driver) Init(ctx context.Context, pool backend.Pool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := check(pool); err != nil {
		return err
	}
	switch err := os.Mkdir(pool.Path, poolMode); {
	case err == nil:
		if err := os.Chmod(pool.Path, poolMode); err != nil { // whatever the umask
			return classify("make pool", err)
		}
	case !errors.Is(err, fs.ErrExist):
		return classify("make pool", err)
	}
	root, err := os.OpenRoot(pool.Path)
	if err != nil {
		return classify("open pool", err)
	}
	defer root.Close()
	switch id, err := readStamp(root); {
	case err == nil && id == pool.ID:
		return syncDir(root)
	case err == nil:
		return fmt.Errorf("%w: the directory is pool %s", backend.ErrAlreadyExists, id)
	case !errors.Is(err, fs.ErrNotExist):
		return classify("read stamp", err)
	}
	if err := empty(root); err != nil {
		return err
	}
	if err := writeStamp(root, pool.ID); err != nil {
		return classify("write stamp", err)
	}
	if err := syncDir(root); err != nil {
		return err
	}
	parent, err := os.OpenRoot(filepath.Dir(pool.Path))
	if err != nil {
		return classify("open pool's parent", err)
	}
	defer parent.Close()
	return syncDir(parent)
}

// Open returns the backend of a pool.
func (d Driver) Open(pool backend.Pool) (backend.Backend, error) {
	if err := check(pool); err != nil {
		return nil, err
	}
	return &Backend{pool: pool, images: d.Images}, nil
}

func check(pool backend.Pool) error {
	if pool.ID == uuid.Nil || !filepath.IsAbs(pool.Path) || filepath.Clean(pool.Path) != pool.Path {
		return fmt.Errorf("%w: a dir pool needs an id and an absolute, clean path", backend.ErrInvalid)
	}
	return nil
}

// empty fails with ErrConflict when the directory holds anything but what a new file system or an interrupted Init
// leaves.
func empty(root *os.Root) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return classify("list pool", err)
	}
	for _, e := range entries {
		if e.Name() != "lost+found" && e.Name() != stampPartial {
			return fmt.Errorf("%w: the directory is not empty", backend.ErrConflict)
		}
	}
	return nil
}

func readStamp(root *os.Root) (uuid.UUID, error) {
	b, err := root.ReadFile(stamp)
	if err != nil {
		return uuid.Nil, err
	}
	if len(b) > 36 {
		b = b[:36]
	}
	return uuid.ParseBytes(b)
}

func writeStamp(root *os.Root, id uuid.UUID) error {
	f, err := root.OpenFile(stampPartial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, fileMode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(id.String() + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return root.Rename(stampPartial, stamp)
}

// syncDir makes the directory's entries durable.
func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return classify("open directory", err)
	}
	defer d.Close()
	return classify("sync directory", d.Sync())
}
