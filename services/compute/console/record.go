package console

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Window is how much of what a serial line said is kept, in bytes.
const Window = 1 << 20

// record follows a serial log. It finds its own place in the file, so that readers are many and none holds up another, nor
// the hypervisor. Bytes more than Window before the end may be gone, and are never given out.
type record struct {
	path string
	file *os.File // nil until there is one
	at   int64
	next *os.File // what has taken its place, when it was rotated
}

// openRecord begins back bytes before the end. The file need not be there yet.
func openRecord(path string, back int64) (*record, error) {
	r := &record{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r.file, r.at = f, max(0, info.Size()-back)
	return r, nil
}

func (r *record) close() {
	for _, f := range []*os.File{r.file, r.next} {
		if f != nil {
			f.Close() // it was only read
		}
	}
}

// read gives what follows, 0 bytes if that is not there yet. skipped says how many bytes before them are gone, because
// the reader was too slow.
func (r *record) read(b []byte) (n int, skipped int64, err error) {
	for {
		if r.file != nil {
			n, err = r.file.ReadAt(b, r.at)
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, skipped, err
			}
			info, err := r.file.Stat()
			if err != nil {
				return 0, skipped, err
			}
			switch size := info.Size(); {
			case r.at < size-Window: // what was read may have been a hole; half a window is a lead to keep
				skipped += size - Window/2 - r.at
				r.at = size - Window/2
				continue
			case n > 0:
				r.at += int64(n)
				return n, skipped, nil
			case size < r.at: // somebody emptied it
				r.at = 0
				continue
			}
		}
		if moved, err := r.turn(); !moved || err != nil {
			return 0, skipped, err
		}
	}
}

// turn goes on to the file that has taken the place of this one, once that has been read again: its writer may have
// written to it up to the change.
func (r *record) turn() (moved bool, err error) {
	if r.next != nil {
		err = r.file.Close()
		r.file, r.next, r.at = r.next, nil, 0
		return true, err
	}
	f, err := os.Open(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || r.file == nil {
		r.file = f
		return err == nil, err
	}
	same, err := sameFile(r.file, f)
	if same || err != nil {
		return false, errors.Join(err, f.Close())
	}
	r.next = f
	return true, nil
}

func sameFile(a, b *os.File) (bool, error) {
	is, err := a.Stat()
	if err != nil {
		return false, err
	}
	other, err := b.Stat()
	return err == nil && os.SameFile(is, other), err
}

// last is the end of a serial log, Window bytes at most. A log that was rotated goes on backwards in <path>.0; one that is
// not there is empty.
func last(path string) ([]byte, error) {
	b, err := lastOf(path, Window)
	if err != nil || len(b) == Window {
		return b, err
	}
	older, err := lastOf(path+".0", int64(Window-len(b)))
	return append(older, b...), err
}

func lastOf(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	at := max(0, info.Size()-n)
	b := make([]byte, info.Size()-at)
	got, err := f.ReadAt(b, at)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if info, err = f.Stat(); err != nil { // it has grown meanwhile, and its beginning may have become a hole
		return nil, err
	}
	gone := min(max(0, info.Size()-Window-at), int64(got))
	return b[gone:got], nil
}

// lookEach is how often the logs are looked at: between two looks one may grow as much as a guest can say.
const lookEach = 2 * time.Second

// keepShort bounds what the logs in LogDir take on disk, until ctx ends. Their length goes on growing: it is where the
// writer, who is not ours, appends.
func (s *Service) keepShort(ctx context.Context) {
	if s.LogDir == "" {
		return
	}
	tick := time.NewTicker(lookEach)
	defer tick.Stop()
	warned := false
	for {
		if err := shorten(s.LogDir); err != nil && !warned {
			s.Log.Warn("serial logs cannot be kept short", "err", err)
			warned = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// shorten gives back to the file system what lies before the window of each log in a folder.
func shorten(dir string) error {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	errs := []error{err}
	for _, name := range names {
		if err := punch(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func punch(path string) error {
	var is unix.Stat_t
	if err := unix.Lstat(path, &is); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	const block = 512 // of Blocks, whatever the file system's is
	if is.Mode&unix.S_IFMT != unix.S_IFREG || is.Blocks*block <= 2*Window {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	const page = 4096
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, (is.Size-Window)&^(page-1)); err != nil {
		return &fs.PathError{Op: "punch a hole into", Path: path, Err: err}
	}
	return nil
}
