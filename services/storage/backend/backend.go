// Package backend is what the storage service asks of a kind of storage. The implementations are below it; the suite
// that all of them pass is backendtest/.
package backend

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"
)

// Every failure of a backend is one of these, wrapped with what the storage said (which is for logs, never for users),
// or the context's.
var (
	ErrNotFound      = errors.New("not found")
	ErrAlreadyExists = errors.New("already exists") // with another size or format
	ErrConflict      = errors.New("conflict")       // not possible in this state
	ErrBusy          = errors.New("busy")           // try again later
	ErrInvalid       = errors.New("invalid")        // the backend refuses what was asked
	ErrUnsupported   = errors.New("unsupported")    // this backend cannot do it
	ErrUnavailable   = errors.New("unavailable")    // the pool is not there now
	ErrExhausted     = errors.New("exhausted")      // no space left
	ErrPermission    = errors.New("permission denied")
	ErrUnknown       = errors.New("outcome unknown") // a call was cut off: look before acting again
)

// Formats of volumes.
const (
	Raw   = "raw"
	QCOW2 = "qcow2"
)

// Pool is where volumes are made. Its id is stamped into the storage, so that an empty mount point is never taken for
// the pool that belongs there.
type Pool struct {
	ID      uuid.UUID
	Path    string // absolute for dir
	Options map[string]string
}

// Driver knows one type of pool.
type Driver interface {
	// Init makes an empty pool and stamps it with its id. What already carries the id is success; ErrAlreadyExists
	// when the place is another pool's, ErrConflict when it holds something else.
	Init(ctx context.Context, pool Pool) error
	// Open returns the backend of a pool. It does no I/O: a pool that is not there fails each call with
	// ErrUnavailable, and works again when it comes back.
	Open(pool Pool) (Backend, error)
}

// Spec is a volume to create. Its id is the volume's identity in the storage: no name a user gave reaches it.
type Spec struct {
	ID        uuid.UUID
	SizeBytes int64 // of the disk that a guest sees; a positive multiple of 512
	Format    string
	Thin      bool   // false reserves all of SizeBytes at once
	Image     string // path of a file with whose bytes the volume starts, "" for none
}

// Volume is what the storage knows of a volume.
type Volume struct {
	ID        uuid.UUID
	Type      string // file or block
	Path      string // where the node's hypervisor finds it
	Format    string
	SizeBytes int64 // of the disk that a guest sees
	Allocated int64 // bytes that it takes now
}

// Usage of a pool in bytes.
type Usage struct {
	Capacity  int64
	Available int64 // to us
}

// Capabilities of a backend.
type Capabilities struct {
	Formats []string
	Thin    bool // can make volumes that take space as they are written
	Thick   bool // can reserve a volume's space
	Images  bool // can start a volume with an image's bytes
}

// Backend keeps the volumes of one pool. All methods may be called at the same time by many goroutines, and answer
// within the context's deadline.
//
// A mutation that was cut off (ErrUnknown, ErrUnavailable, the context's error) may or may not have happened; after any
// other failure it has not. Every mutation can be repeated: what already holds is success. kill -9 at any instant leaves a volume that is whole or none, and nothing that a repetition does not clear.
type Backend interface {
	Capabilities() Capabilities

	// Create makes a volume. One of the same id, format and size is success and stays as it is, whatever image it
	// started with; ErrAlreadyExists when they differ. ErrInvalid when the spec is none or the image is larger than the
	// volume; ErrNotFound when there is no such image; ErrExhausted when the space does not suffice.
	Create(ctx context.Context, spec Spec) (Volume, error)
	// Resize makes a volume as large as a number of bytes, a positive multiple of 512; one that is as large or larger
	// is success. What is new reads as zeros. ErrNotFound; ErrInvalid; ErrExhausted when the space does not suffice.
	Resize(ctx context.Context, id uuid.UUID, sizeBytes int64) error
	// Delete removes a volume and what a broken-off Create left of it. One that does not exist is success.
	Delete(ctx context.Context, id uuid.UUID) error

	// Volume observes one. ErrNotFound.
	Volume(ctx context.Context, id uuid.UUID) (Volume, error)
	// Volumes observes all that are ours, in the order of their ids. What else lies in the pool is left out.
	Volumes(ctx context.Context) ([]Volume, error)
	// Usage observes the space. It fails with ErrUnavailable while the pool is not there.
	Usage(ctx context.Context) (Usage, error)
}

// Validate fails with ErrInvalid when no backend could make the volume, and with ErrUnsupported when one of these
// capabilities cannot.
func (s Spec) Validate(c Capabilities) error {
	switch {
	case s.ID == uuid.Nil:
		return fmt.Errorf("%w: the volume has no id", ErrInvalid)
	case s.SizeBytes <= 0 || s.SizeBytes%512 != 0:
		return fmt.Errorf("%w: size %d is not a positive multiple of 512", ErrInvalid, s.SizeBytes)
	case !slices.Contains(c.Formats, s.Format):
		return fmt.Errorf("%w: format %q", ErrUnsupported, s.Format)
	case s.Thin && !c.Thin, !s.Thin && !c.Thick:
		return fmt.Errorf("%w: thin %t", ErrUnsupported, s.Thin)
	case s.Image != "" && !c.Images:
		return fmt.Errorf("%w: images", ErrUnsupported)
	}
	return nil
}
