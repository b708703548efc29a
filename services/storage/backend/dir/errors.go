package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"horcrux/services/storage/backend"
)

// classify says which of the backend's errors an error of the file system is. nil stays nil.
func classify(doing string, err error) error {
	if err == nil {
		return nil
	}
	kind := backend.ErrUnavailable // EIO, ESTALE, ETIMEDOUT, ENODEV, …: the disk or its server is not there
	var errno syscall.Errno
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		kind = backend.ErrPermission
	case !errors.As(err, &errno):
	case errno == syscall.ENOSPC, errno == syscall.EDQUOT:
		kind = backend.ErrExhausted
	case errno == syscall.EFBIG, errno == syscall.EINVAL:
		kind = backend.ErrInvalid
	case errno == syscall.EOPNOTSUPP, errno == syscall.ENOSYS:
		kind = backend.ErrUnsupported
	case errno == syscall.EMFILE, errno == syscall.ENFILE, errno == syscall.ENOMEM, errno == syscall.EAGAIN:
		kind = backend.ErrBusy
	}
	return fmt.Errorf("%s: %w: %w", doing, kind, err)
}
