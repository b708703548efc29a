package storage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	volumewire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/volume"
)

// callTime is the least that one attempt of an effect may take; copying an image may take all of the intent's time.
const callTime = time.Minute

// clearTime bounds the removal of what a failed create may have left.
const clearTime = 10 * time.Second

// perform brings about the effect of a volume's intent. The backend looks before it acts.
func (s *Service) perform(ctx context.Context, id uuid.UUID, v volume.Volume) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, max(callTime, v.Intent.Deadline.Sub(s.Clock())))
	defer cancel()
	b, err := s.backendOf(ctx, v)
	if err != nil {
		return nil, effectError(err)
	}
	switch v.Phase {
	case volume.Creating:
		made, err := b.Create(ctx, backend.Spec{
			ID: id, SizeBytes: v.SizeGB * volume.GiB, Format: v.Format, Thin: v.Thin, Image: v.Image,
		})
		return volume.Made{Created: volumewire.Created{Type: made.Type, Path: made.Path, Format: made.Format}}, effectError(err)
	case volume.Growing:
		return volume.Grown{}, effectError(b.Resize(ctx, id, v.WantGB*volume.GiB))
	case volume.Deleting:
		return volume.Removed{}, effectError(b.Delete(ctx, id))
	}
	return nil, fmt.Errorf("no effect for a volume that is %s", v.Phase)
}

// failed makes sure that a create whose time ran out leaves nothing: its last attempt may have come about.
func (s *Service) failed(ctx context.Context, id uuid.UUID, v volume.Volume, p *problem.Problem) any {
	if v.Phase == volume.Creating && p.Code == problem.DeadlineExceeded {
		ctx, cancel := context.WithTimeout(ctx, clearTime)
		defer cancel()
		b, err := s.backendOf(ctx, v)
		if err == nil {
			err = b.Delete(ctx, id)
		}
		if err != nil {
			s.Log.WarnContext(ctx, "a failed create is cleared away later", "volume", id, "err", err)
			s.orphans.Store(true)
			s.lookSoon()
		}
	}
	return volume.Failed{Problem: p}
}

// effectError says what a failure means for the effect: try again, or give up with this problem. The storage's own
// words stay in the chain for the log.
func effectError(err error) error {
	because := func(p *problem.Problem) error { return fmt.Errorf("%w: %w", p, err) }
	switch {
	case err == nil:
		return nil
	case errors.Is(err, backend.ErrUnavailable), errors.Is(err, backend.ErrUnknown), errors.Is(err, backend.ErrBusy),
		errors.Is(err, eventstore.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", engine.ErrAgain, err)
	case errors.Is(err, backend.ErrExhausted):
		return because(noSpace())
	case errors.Is(err, backend.ErrPermission):
		return because(problem.New(problem.StorageUnavailable, "the service may not change the pool"))
	case errors.Is(err, backend.ErrNotFound):
		return because(noImage())
	case errors.Is(err, backend.ErrInvalid), errors.Is(err, backend.ErrUnsupported):
		return because(problem.New(problem.InvalidValue, "the pool refuses this volume; the operation's log says why"))
	}
	return err
}
