// Package traced shows each call of a storage backend as a span of the trace that it was made in.
package traced

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/trace"
	"horcrux/services/storage/backend"
)

// Backend is a backend whose calls are spans. It is the backend itself in all else.
func Backend(b backend.Backend) backend.Backend { return volumes{b} }

type volumes struct{ backend.Backend }

func (v volumes) Create(ctx context.Context, spec backend.Spec) (made backend.Volume, err error) {
	err = span(ctx, "Create", spec.ID, func(ctx context.Context) (err error) {
		made, err = v.Backend.Create(ctx, spec)
		return err
	})
	return made, err
}

func (v volumes) Resize(ctx context.Context, id uuid.UUID, sizeBytes int64) error {
	return span(ctx, "Resize", id, func(ctx context.Context) error { return v.Backend.Resize(ctx, id, sizeBytes) })
}

func (v volumes) Delete(ctx context.Context, id uuid.UUID) error {
	return span(ctx, "Delete", id, func(ctx context.Context) error { return v.Backend.Delete(ctx, id) })
}

func (v volumes) Volume(ctx context.Context, id uuid.UUID) (seen backend.Volume, err error) {
	err = span(ctx, "Volume", id, func(ctx context.Context) (err error) {
		seen, err = v.Backend.Volume(ctx, id)
		return err
	})
	return seen, err
}

func (v volumes) Volumes(ctx context.Context) (seen []backend.Volume, err error) {
	err = span(ctx, "Volumes", uuid.Nil, func(ctx context.Context) (err error) {
		seen, err = v.Backend.Volumes(ctx)
		return err
	})
	return seen, err
}

func (v volumes) Usage(ctx context.Context) (u backend.Usage, err error) {
	err = span(ctx, "Usage", uuid.Nil, func(ctx context.Context) (err error) {
		u, err = v.Backend.Usage(ctx)
		return err
	})
	return u, err
}

// known are the words for a failure; what the storage said may hold anything and is for the log.
var known = []error{
	backend.ErrNotFound, backend.ErrAlreadyExists, backend.ErrConflict, backend.ErrBusy, backend.ErrInvalid,
	backend.ErrUnsupported, backend.ErrUnavailable, backend.ErrExhausted, backend.ErrPermission, backend.ErrUnknown,
}

// span makes one call, over a volume unless id is uuid.Nil.
func span(ctx context.Context, name string, id uuid.UUID, call func(context.Context) error) error {
	var about []string
	if id != uuid.Nil {
		about = []string{"horcrux.volume", id.String()}
	}
	ctx, s := trace.Start(ctx, trace.Client, "storage "+name, about...)
	err := call(ctx)
	s.End(err, known...)
	return err
}
