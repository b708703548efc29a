package storage_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/fake"
)

func TestDeadline(t *testing.T) {
	t.Run("passes while the pool is away", func(t *testing.T) {
		world := &fake.World{}
		h := newHost(t, world)
		world.Vanish(storage.LocalID(h.node))
		id := events.NewID()
		step := h.step("create", id, h.data("data"), time.Now().Add(time.Minute))
		h.wantStory(id, "create_requested")
		h.ahead.Store(int64(2 * time.Minute))
		if r := h.reply(step); r.Problem == nil || r.Problem.Code != problem.DeadlineExceeded {
			t.Errorf("the process heard %+v", r)
		}
		h.wantStory(id, "create_requested create_failed")
	})
	t.Run("passes though the volume was made, which is then cleared away", func(t *testing.T) {
		var stuck atomic.Bool
		stuck.Store(true)
		world, looked := awkward(&stuck)
		h := newHost(t, world)
		id := events.NewID()
		op := h.create(id, h.data("data"))
		h.until("it was made", func() bool { return world.Effects(fake.Create, id) == 1 })
		h.ahead.Store(int64(time.Hour))
		if v := h.ended(op); v.State != operation.StateFailed || v.Error.Code != problem.DeadlineExceeded {
			t.Errorf("%s: %+v", v.State, v.Error)
		}
		h.wait(looked)
		if list := h.stored(); len(list) != 1 {
			t.Fatalf("stored %+v, want one before the storage lets go", list)
		}
		stuck.Store(false)
		h.until("it is cleared away", func() bool { return world.Effects(fake.Delete, id) == 1 })
	})
	t.Run("passes, and the service looks for leftovers before the failure is recorded", func(t *testing.T) {
		var stuck atomic.Bool
		stuck.Store(true)
		world, looked := awkward(&stuck)
		h := newHost(t, world)
		h.stop()
		h.used = &lateFailure{Store: h.store, until: looked}
		h.start()
		id := events.NewID()
		op := h.create(id, h.data("data"))
		h.until("it was made", func() bool { return world.Effects(fake.Create, id) == 1 })
		h.ahead.Store(int64(time.Hour))
		h.ended(op)
		stuck.Store(false)
		h.until("it is cleared away", func() bool { return world.Effects(fake.Delete, id) == 1 })
	})
}

// awkward is a world that makes a volume and loses the answer, and that deletes none while it is stuck. looked is
// closed when it is then asked what it holds.
func awkward(stuck *atomic.Bool) (world *fake.World, looked chan struct{}) {
	looked = make(chan struct{})
	var once sync.Once
	var refused atomic.Bool
	return &fake.World{
		Before: func(_ context.Context, call string, _ uuid.UUID) error {
			if call == fake.Delete && stuck.Load() {
				refused.Store(true)
				return backend.ErrUnavailable
			}
			return nil
		},
		After: func(_ context.Context, call string, _ uuid.UUID) error {
			switch {
			case call == fake.Create:
				return backend.ErrUnknown
			case call == fake.Volumes && refused.Load():
				once.Do(func() { close(looked) })
			}
			return nil
		},
	}, looked
}

// lateFailure is a store that records a failed create only after something else has happened.
type lateFailure struct {
	eventstore.Store
	until chan struct{}
}

func (s *lateFailure) Append(ctx context.Context, a eventstore.Append) (eventstore.Result, error) {
	for _, st := range a.Streams {
		if len(st.Events) > 0 && st.Events[0].Type == "volume.create_failed" {
			select {
			case <-s.until:
			case <-ctx.Done():
				return eventstore.Result{}, ctx.Err()
			}
		}
	}
	return s.Store.Append(ctx, a)
}
