package dir

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const partialSuffix = ".partial"

// partial is a file that is being made. Its maker, and the qemu-img that inherits it, hold a lock on it: one that
// nobody holds was left by a process that died.
type partial struct {
	*os.File
	root *os.Root
	name string
}

func newPartial(root *os.Root, id uuid.UUID) (*partial, error) {
	for {
		name := id.String() + "." + rand.Text() + partialSuffix
		f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, fileMode)
		if err != nil {
			return nil, err
		}
		p := &partial{File: f, root: root, name: name}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, p.discard())
		}
		// Somebody who clears leftovers may have been faster than the lock.
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil {
			return nil, errors.Join(err, p.discard())
		}
		if st.Nlink > 0 {
			return p, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

// publish gives the whole file its name. It fails with fs.ErrExist where the name is taken.
func (p *partial) publish(name string) error {
	if err := p.Sync(); err != nil {
		return err
	}
	return p.root.Link(p.name, name)
}

// discard forgets the partial name, whether or not the file has got another.
func (p *partial) discard() error {
	return errors.Join(remove(p.root, p.name), p.Close())
}

// sweep removes what dead makers left of a volume.
func sweep(root *os.Root, id uuid.UUID) error {
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), id.String()+".") && strings.HasSuffix(e.Name(), partialSuffix) {
			if err := removeDead(root, e.Name()); err != nil {
				return fmt.Errorf("clear leftover: %w", err)
			}
		}
	}
	return nil
}

// removeDead removes a partial file unless its maker lives.
func removeDead(root *os.Root, name string) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil
	case err != nil:
		return err
	}
	return remove(root, name)
}

// remove takes away a name; that it is gone already is success.
func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
