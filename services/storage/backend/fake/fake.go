// Package fake is a backend in memory whose faults a test chooses and whose effects it counts.
package fake

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/google/uuid"

	"horcrux/services/storage/backend"
)

// The names of calls, as hooks and counters see them.
const (
	Init    = "init"
	Create  = "create"
	Delete  = "delete"
	Resize  = "resize"
	Volume  = "volume"
	Volumes = "volumes"
	Usage   = "usage"
)

// Hook is called at a call's beginning or end. What it returns, if not nil, is what the call fails with.
type Hook func(ctx context.Context, call string, id uuid.UUID) error

// World is what lies outside the service: it stays when the service dies. It is also the driver of its pools. The zero
// world has no images; its fields are set before it is used.
type World struct {
	Before   Hook             // a failure means that nothing happened
	After    Hook             // a failure means that only the answer was lost
	Images   map[string]int64 // path → virtual size in bytes
	Capacity int64            // of each pool in bytes; 0 means 1 TiB

	mu      sync.Mutex
	pools   map[uuid.UUID]map[uuid.UUID]backend.Volume
	effects map[effect]int
}

type effect struct {
	call string
	id   uuid.UUID
}

var _ backend.Driver = (*World)(nil)

// Effects says how often a call changed what it was called for.
func (w *World) Effects(call string, id uuid.UUID) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.effects[effect{call, id}]
}

// Vanish takes a pool away with all that is in it.
func (w *World) Vanish(pool uuid.UUID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pools, pool)
}

// Init implements backend.Driver.
func (w *World) Init(ctx context.Context, pool backend.Pool) error {
	return w.call(ctx, Init, pool.ID, func() error {
		if _, ok := w.pools[pool.ID]; ok {
			return nil
		}
		if w.pools == nil {
			w.pools = map[uuid.UUID]map[uuid.UUID]backend.Volume{}
		}
		w.pools[pool.ID] = map[uuid.UUID]backend.Volume{}
		w.count(Init, pool.ID)
		return nil
	})
}

// Open implements backend.Driver.
func (w *World) Open(pool backend.Pool) (backend.Backend, error) {
	return &pooled{world: w, pool: pool}, nil
}

// call runs one call between the hooks, holding the lock for the call alone.
func (w *World) call(ctx context.Context, name string, id uuid.UUID, do func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if w.Before != nil {
		if err := w.Before(ctx, name, id); err != nil {
			return err
		}
	}
	w.mu.Lock()
	err := do()
	w.mu.Unlock()
	if err == nil && w.After != nil {
		err = w.After(ctx, name, id)
	}
	return err
}

// count counts an effect. The lock is held.
func (w *World) count(call string, id uuid.UUID) {
	if w.effects == nil {
		w.effects = map[effect]int{}
	}
	w.effects[effect{call, id}]++
}

// pooled is the backend of one pool.
type pooled struct {
	world *World
	pool  backend.Pool
}

func (p *pooled) Capabilities() backend.Capabilities {
	return backend.Capabilities{Formats: []string{backend.Raw, backend.QCOW2}, Thin: true, Thick: true, Images: true}
}

func (p *pooled) Create(ctx context.Context, spec backend.Spec) (v backend.Volume, err error) {
	if err := spec.Validate(p.Capabilities()); err != nil {
		return v, err
	}
	err = p.call(ctx, Create, spec.ID, func(volumes map[uuid.UUID]backend.Volume) error {
		if have, ok := volumes[spec.ID]; ok {
			if have.Format != spec.Format || have.SizeBytes != spec.SizeBytes {
				return backend.ErrAlreadyExists
			}
			v = have
			return nil
		}
		v = backend.Volume{
			ID: spec.ID, Type: "file", Path: p.pool.Path + "/" + spec.ID.String() + "." + spec.Format,
			Format: spec.Format, SizeBytes: spec.SizeBytes,
		}
		if spec.Image != "" {
			size, ok := p.world.Images[spec.Image]
			switch {
			case !ok:
				return fmt.Errorf("image: %w", backend.ErrNotFound)
			case size > spec.SizeBytes:
				return fmt.Errorf("%w: image larger than the volume", backend.ErrInvalid)
			}
			v.Allocated = size
		}
		if !spec.Thin {
			v.Allocated = spec.SizeBytes
		}
		if v.Allocated > p.usage(volumes).Available {
			return backend.ErrExhausted
		}
		volumes[spec.ID] = v
		p.world.count(Create, spec.ID)
		return nil
	})
	if err != nil {
		return backend.Volume{}, err
	}
	return v, nil
}

func (p *pooled) Resize(ctx context.Context, id uuid.UUID, sizeBytes int64) error {
	return p.call(ctx, Resize, id, func(volumes map[uuid.UUID]backend.Volume) error {
		v, ok := volumes[id]
		switch {
		case !ok:
			return backend.ErrNotFound
		case sizeBytes <= 0 || sizeBytes%512 != 0:
			return backend.ErrInvalid
		case v.SizeBytes >= sizeBytes:
			return nil
		}
		v.SizeBytes = sizeBytes
		volumes[id] = v
		p.world.count(Resize, id)
		return nil
	})
}

func (p *pooled) Delete(ctx context.Context, id uuid.UUID) error {
	return p.call(ctx, Delete, id, func(volumes map[uuid.UUID]backend.Volume) error {
		if _, ok := volumes[id]; ok {
			delete(volumes, id)
			p.world.count(Delete, id)
		}
		return nil
	})
}

func (p *pooled) Volume(ctx context.Context, id uuid.UUID) (v backend.Volume, err error) {
	err = p.call(ctx, Volume, id, func(volumes map[uuid.UUID]backend.Volume) error {
		var ok bool
		if v, ok = volumes[id]; !ok {
			return backend.ErrNotFound
		}
		return nil
	})
	return v, err
}

func (p *pooled) Volumes(ctx context.Context) (list []backend.Volume, err error) {
	err = p.call(ctx, Volumes, p.pool.ID, func(volumes map[uuid.UUID]backend.Volume) error {
		list = slices.SortedFunc(maps.Values(volumes), func(a, b backend.Volume) int { return bytes.Compare(a.ID[:], b.ID[:]) })
		return nil
	})
	return list, err
}

func (p *pooled) Usage(ctx context.Context) (u backend.Usage, err error) {
	err = p.call(ctx, Usage, p.pool.ID, func(volumes map[uuid.UUID]backend.Volume) error {
		u = p.usage(volumes)
		return nil
	})
	return u, err
}

func (p *pooled) usage(volumes map[uuid.UUID]backend.Volume) backend.Usage {
	u := backend.Usage{Capacity: p.world.Capacity}
	if u.Capacity == 0 {
		u.Capacity = 1 << 40
	}
	u.Available = u.Capacity
	for _, v := range volumes {
		u.Available -= v.Allocated
	}
	return u
}

// call is a call for a pool, which may have vanished.
func (p *pooled) call(ctx context.Context, name string, id uuid.UUID, do func(map[uuid.UUID]backend.Volume) error) error {
	return p.world.call(ctx, name, id, func() error {
		volumes, ok := p.world.pools[p.pool.ID]
		if !ok {
			return backend.ErrUnavailable
		}
		return do(volumes)
	})
}
