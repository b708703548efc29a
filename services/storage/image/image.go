// Package image opens the files with whose bytes a volume may start. It reads headers and trusts none.
package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"horcrux/services/storage/backend"
)

// Library is the directories below which images lie.
type Library struct{ Dirs []string }

// Image is an open image.
type Image struct {
	*os.File
	Format    string // backend.Raw or backend.QCOW2
	SizeBytes int64  // of the disk that a guest would see
}

// Open opens the image at an absolute path below one of the library's directories. No symbolic link leads out of it,
// also none that is put there meanwhile. It fails with backend.ErrInvalid for a path outside, for what is no regular
// file, and for an image that is encrypted or needs another file; with backend.ErrNotFound or backend.ErrPermission.
// The caller closes the image.
func (l Library) Open(path string) (*Image, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, fmt.Errorf("%w: image path is not absolute and clean", backend.ErrInvalid)
	}
	for _, dir := range l.Dirs {
		for _, base := range spellings(dir) {
			if rel, err := filepath.Rel(base, path); err == nil && rel != "." && filepath.IsLocal(rel) {
				return open(base, rel)
			}
		}
	}
	return nil, fmt.Errorf("%w: image path is outside the image directories", backend.ErrInvalid)
}

// spellings are the names by which a directory may be called: its own, and the one without symbolic links.
func spellings(dir string) []string {
	dir = filepath.Clean(dir)
	if real, err := filepath.EvalSymlinks(dir); err == nil && real != dir {
		return []string{dir, real}
	}
	return []string{dir}
}

func open(base, rel string) (_ *Image, err error) {
	root, err := os.OpenRoot(base)
	if err != nil {
		return nil, classify(err)
	}
	defer root.Close()
	// Without O_NONBLOCK a FIFO would hold the caller until somebody writes to it.
	f, err := root.OpenFile(rel, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, classify(err)
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, classify(err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: image is no regular file", backend.ErrInvalid)
	}
	size, err := QCOW2Size(f)
	switch {
	case err == nil:
		return &Image{File: f, Format: backend.QCOW2, SizeBytes: size}, nil
	case !errors.Is(err, errNotQCOW2):
		return nil, fmt.Errorf("%w: %w", backend.ErrInvalid, err)
	case info.Size() == 0:
		return nil, fmt.Errorf("%w: image is empty", backend.ErrInvalid)
	}
	// A guest sees whole sectors.
	return &Image{File: f, Format: backend.Raw, SizeBytes: (info.Size() + sectorSize - 1) / sectorSize * sectorSize}, nil
}

func classify(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open image: %w: %w", backend.ErrNotFound, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("open image: %w: %w", backend.ErrPermission, err)
	}
	return fmt.Errorf("open image: %w: %w", backend.ErrInvalid, err)
}
