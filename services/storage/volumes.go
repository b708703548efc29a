package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	vmwire "horcrux/pkg/events/vm"
	volumewire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/volume"
)

// askTime bounds the question to a pool before a decision.
const askTime = 5 * time.Second

// volumeKind binds the decider of volumes to commands and effects.
func (s *Service) volumeKind() *engine.Kind[volume.Volume] {
	return &engine.Kind[volume.Volume]{
		Codec:   volumewire.Codec,
		Decider: volume.Decider,
		Intent:  volume.Intent,
		Names:   volume.Names,
		Perform: s.perform,
		Failed:  s.failed,
		Commands: map[string]engine.Command[volume.Volume]{
			"create":  {Creates: true, Decode: decodeCreate, Prepare: s.prepareCreate},
			"delete":  {Decode: decodeDelete, Prepare: s.prepareDelete},
			"release": {Decode: decodeRelease},
			"resize":  {Decode: decodeResize},
		},
	}
}

func decodeCreate(c events.Command) (any, error) {
	data, err := engine.StrictData[volumewire.CreateData](c)
	if err != nil {
		return nil, err
	}
	return volume.NewCreate(c.Intent(), data)
}

func decodeDelete(c events.Command) (any, error) {
	data, err := engine.StrictData[volumewire.DeleteData](c)
	return volume.Delete{Intent: c.Intent(), DeleteData: data}, err
}

func decodeResize(c events.Command) (any, error) {
	data, err := engine.StrictData[volumewire.ResizeData](c)
	return volume.Resize{Intent: c.Intent(), ResizeData: data}, err
}

func decodeRelease(c events.Command) (any, error) {
	data, err := engine.StrictData[volumewire.DeleteData](c)
	return volume.Release{DeleteData: data}, err
}

// unavailable logs why a pool cannot be used, which the caller of the service is not told.
func (s *Service) unavailable(ctx context.Context, pool uuid.UUID, err error) *problem.Problem {
	s.Log.WarnContext(ctx, "the pool cannot be used", "pool", pool, "err", err)
	s.lookSoon()
	return problem.New(problem.StorageUnavailable, "the pool cannot be used now")
}

func invalid(field, format string, args ...any) *problem.Problem {
	return problem.Invalid(problem.Field{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// prepareCreate looks up what the decision about a new volume needs: its pool, what that can do, and the image. What
// does not fit is a rejection that names the field. A pool that is away refuses a request; the step of a process that
// was accepted waits for it instead.
func (s *Service) prepareCreate(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(volume.Create)
	p, err := s.pool(ctx, c.Pool)
	if errors.Is(err, errNoPool) {
		return nil, invalid("pool", "there is no such pool on the node")
	}
	if err != nil {
		return nil, err
	}
	b, err := s.open(c.Pool, p)
	if err != nil {
		return nil, s.unavailable(ctx, c.Pool, err)
	}
	c.PoolPath, c.Node = p.Path, s.Node
	can := b.Capabilities()
	switch {
	case !slices.Contains(can.Formats, c.Format):
		return nil, invalid("format", "the pool keeps no %s volumes", c.Format)
	case c.Thin && !can.Thin, !c.Thin && !can.Thick:
		return nil, invalid("thin", "the pool keeps no such volumes")
	}
	if err := s.checkImage(ctx, c.CreateData, can); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	u, err := b.Usage(ctx)
	switch {
	case err != nil && cmd.Step == "":
		return nil, s.unavailable(ctx, c.Pool, err)
	case err == nil && !c.Thin && u.Available < c.SizeGB*volume.GiB:
		return nil, noSpace()
	}
	return c, nil
}

func noSpace() *problem.Problem {
	return problem.New(problem.InsufficientResources, "the pool has not enough space for the volume")
}

func noImage() *problem.Problem {
	return invalid("image", "there is no such image under the node's image_dirs")
}

func (s *Service) checkImage(ctx context.Context, d volumewire.CreateData, can backend.Capabilities) error {
	if d.Image == "" {
		return nil
	}
	if !can.Images {
		return invalid("image", "the pool cannot start a volume with an image")
	}
	img, err := s.images.Open(d.Image)
	switch {
	case errors.Is(err, backend.ErrNotFound):
		return noImage()
	case err != nil:
		s.Log.WarnContext(ctx, "open an image", "image", d.Image, "err", err)
		return invalid("image", "must be a raw or qcow2 file under one of the node's image_dirs, readable, and in need of no other file")
	}
	defer img.Close()
	if img.SizeBytes > d.SizeGB*volume.GiB {
		return invalid("size_gb", "is less than the %d GiB of the image", (img.SizeBytes+volume.GiB-1)/volume.GiB)
	}
	return nil
}

// prepareDelete looks up whether the volume's owner is no more, and refuses a request while the volume's pool is away.
// The step of a process comes from an owner that lives, and waits for the pool instead.
func (s *Service) prepareDelete(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	if cmd.Step != "" {
		return decoded, nil
	}
	c := decoded.(volume.Delete)
	v, err := s.volume(ctx, cmd.Target)
	if err != nil {
		return nil, err
	}
	ended, err := s.ended(ctx, v.Owner)
	if err != nil {
		return nil, err
	}
	if ended {
		c.Ended = v.Owner
	}
	if v.Phase != volume.Available {
		return c, nil // the decider says no
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	b, err := s.backendOf(ctx, v)
	if err == nil {
		_, err = b.Usage(ctx)
	}
	switch {
	case errors.Is(err, eventstore.ErrUnavailable):
		return nil, err
	case err != nil:
		return nil, s.unavailable(ctx, v.Pool, err)
	}
	return c, nil
}

// owners are the kinds that own volumes.
var owners = map[string]*events.Resource{vmwire.Kind: &vmwire.Resource}

// ended says whether an owner of volumes is no more, for good. It was recorded before its volumes: one without a
// history is gone too. One of a kind that is not known here lives as far as anybody can tell.
func (s *Service) ended(ctx context.Context, owner events.Stream) (bool, error) {
	if owner == "" {
		return false, nil
	}
	h, err := s.Store.Load(ctx, owner)
	if err != nil {
		return false, err
	}
	if len(h[0].Events) == 0 {
		return true, nil
	}
	r, known := owners[owner.Kind()]
	if !known {
		return false, nil
	}
	view, err := r.Fold(nil)
	if err != nil {
		return false, err
	}
	for _, e := range h[0].Events {
		if ended, err := view.Apply(e); ended || err != nil {
			return ended, err
		}
	}
	return false, nil
}

// volume loads a volume.
func (s *Service) volume(ctx context.Context, id uuid.UUID) (volume.Volume, error) {
	h, err := s.Store.Load(ctx, events.NewStream(volumewire.Kind, id))
	if err != nil {
		return volume.Volume{}, err
	}
	return volume.Decider.Fold(volumewire.Codec, h[0])
}

// backendOf returns the backend of a volume's pool.
func (s *Service) backendOf(ctx context.Context, v volume.Volume) (backend.Backend, error) {
	p, err := s.pool(ctx, v.Pool)
	if err != nil {
		return nil, err
	}
	return s.open(v.Pool, p)
}
