package relay_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/relay"
)

func (r *rig) command(deadline time.Duration) events.Command {
	return events.Command{
		ID: events.NewID(), To: events.Address{Domain: "compute", Node: events.AnyNode}, Type: "vm.start",
		Target: uuid.New(), Deadline: r.clock.now().Add(deadline),
	}
}

// inbox counts the commands that arrive at a service; it decides those that it is told to.
type inbox struct {
	mu     sync.Mutex
	got    map[uuid.UUID]int
	decide atomic.Bool
}

func (i *inbox) count(id uuid.UUID) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.got[id]
}

func (r *rig) consume() *inbox {
	r.Helper()
	in := &inbox{got: map[uuid.UUID]int{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := r.bus.Consume(ctx, []events.Address{{Domain: "compute", Node: events.AnyNode}},
			func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
				in.mu.Lock()
				in.got[cmd.ID]++
				in.mu.Unlock()
				if in.decide.Load() {
					return bus.Decision{Command: cmd.ID}, r.decide(ctx, cmd)
				}
				return bus.Decision{Command: cmd.ID}, nil // as one that forgets: a crash after the ack
			})
		if err != nil {
			r.Errorf("Consume: %v", err)
		}
	})
	r.Cleanup(func() { cancel(); wg.Wait() })
	return in
}

func (r *rig) decide(ctx context.Context, cmd events.Command) error {
	_, err := r.store.Append(ctx, eventstore.Append{Command: cmd.ID, Rejection: problem.New(problem.Canceled, "no")})
	return err
}

func (r *rig) due(after time.Duration) int {
	r.Helper()
	due, err := r.store.Due(r.within(time.Second), r.clock.now().Add(after), 1000)
	if err != nil {
		r.Fatal(err)
	}
	return len(due)
}

func TestSweep(t *testing.T) {
	t.Run("UndecidedComeAgainUntilDecided", func(t *testing.T) {
		r := newRig(t)
		rel, _ := r.run(r.options(alone{}))
		r.eventually("it leads", func() bool { return rel.Status().Leading })
		in := r.consume()
		cmd := r.command(time.Hour)
		r.append(1, cmd)
		if err := r.bus.Publish(r.within(time.Second), cmd, 0); err != nil {
			t.Fatal(err)
		}
		r.eventually("the first attempt", func() bool { return in.count(cmd.ID) >= 1 })
		for n := 2; n < 5; n++ {
			r.clock.advance(time.Minute)
			r.eventually("another attempt", func() bool { return in.count(cmd.ID) >= n })
		}
		in.decide.Store(true)
		r.clock.advance(time.Minute)
		r.eventually("decided", func() bool { return r.due(24*time.Hour) == 0 })
	})
	t.Run("BackOff", func(t *testing.T) {
		r := newRig(t)
		cmd := r.command(time.Hour)
		r.append(1, cmd)
		in := r.consume()
		r.run(r.options(alone{}))
		r.eventually("swept by the new leader", func() bool { return in.count(cmd.ID) == 1 && r.due(11*time.Second) == 1 })
		if r.due(8*time.Second) != 0 {
			t.Error("due again within 8 s of its first sweep")
		}
		for range 6 {
			before := in.count(cmd.ID)
			r.clock.advance(time.Minute)
			r.eventually("swept", func() bool { return in.count(cmd.ID) == before+1 && r.due(0) == 0 })
		}
		if r.due(50*time.Second) != 0 || r.due(time.Minute) != 1 {
			t.Error("the pause is not a minute in the end")
		}
	})
	t.Run("LostWithTheStream", func(t *testing.T) {
		r := newRig(t)
		var cmds []events.Command
		for range 300 { // more than one look takes
			cmds = append(cmds, r.command(time.Hour))
		}
		r.append(1, cmds...)
		for _, c := range cmds {
			if err := r.bus.Publish(r.within(time.Second), c, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.js.DeleteStream(r.within(time.Second), events.CommandStream); err != nil {
			t.Fatal(err)
		}
		in := r.consume()
		in.decide.Store(true)
		r.run(r.options(alone{})) // gains leadership: sweeps what is not due yet
		r.eventually("all decided", func() bool { return r.due(24*time.Hour) == 0 })
		for _, c := range cmds {
			if in.count(c.ID) != 1 {
				t.Errorf("command %s came %d times", c.ID, in.count(c.ID))
			}
		}
	})
	t.Run("PastItsDeadline", func(t *testing.T) {
		r := newRig(t)
		in := r.consume()
		o := r.options(alone{})
		var calls atomic.Int32
		o.Expire = func(ctx context.Context, cmd events.Command) error {
			if calls.Add(1) == 1 {
				return errors.New("not now")
			}
			return r.decide(ctx, cmd)
		}
		cmd := r.command(30 * time.Second)
		r.append(1, cmd)
		r.run(o)
		r.eventually("swept", func() bool { return in.count(cmd.ID) == 1 })
		for range 3 {
			r.clock.advance(12 * time.Second)
		}
		r.eventually("tried to reject it", func() bool { return calls.Load() == 1 && r.due(0) == 0 })
		r.clock.advance(time.Minute)
		r.eventually("rejected", func() bool { return calls.Load() == 2 && r.due(24*time.Hour) == 0 })
	})
	t.Run("DueAtItsDeadlineAtLatest", func(t *testing.T) {
		r := newRig(t)
		cmd := r.command(7 * time.Second)
		r.append(1, cmd)
		in := r.consume()
		r.run(r.options(alone{}))
		r.eventually("swept, and due at its deadline", func() bool { return in.count(cmd.ID) == 1 && r.due(8*time.Second) == 1 })
	})
	t.Run("UnpublishableDoesNotStopOthers", func(t *testing.T) {
		r := newRig(t)
		bad, good := r.command(time.Hour), r.command(time.Hour)
		bad.Type = "vm.start now"
		r.append(1, bad)
		r.append(1, good)
		in := r.consume()
		rel, _ := r.run(r.options(alone{}))
		r.eventually("the other arrives", func() bool { return in.count(good.ID) == 1 })
		if err := rel.Status().Sweep; err != nil {
			t.Errorf("status: %v", err)
		}
	})
	t.Run("BusAway", func(t *testing.T) {
		r := newRig(t)
		away := &awayBus{Bus: r.bus}
		away.away.Store(true)
		o := r.options(alone{})
		o.Bus = away
		cmd := r.command(time.Hour)
		r.append(1, cmd)
		in := r.consume()
		rel, _ := r.run(o)
		r.eventually("it says so", func() bool {
			s := rel.Status()
			return errors.Is(s.Sweep, errAway) && errors.Is(s.Events, errAway)
		})
		away.away.Store(false)
		r.eventually("it heals", func() bool {
			s := rel.Status()
			return in.count(cmd.ID) == 1 && s.Sweep == nil && s.Events == nil
		})
		r.complete()
	})
}

var errAway = errors.New("bus is away")

// awayBus fails while it is away.
type awayBus struct {
	relay.Bus
	away atomic.Bool
}

func (b *awayBus) Tail(ctx context.Context) (bus.Tail, error) {
	if b.away.Load() {
		return bus.Tail{}, errAway
	}
	return b.Bus.Tail(ctx)
}

func (b *awayBus) Publish(ctx context.Context, cmd events.Command, attempt int) error {
	if b.away.Load() {
		return errAway
	}
	return b.Bus.Publish(ctx, cmd, attempt)
}

func TestOldOutcomesAreForgotten(t *testing.T) {
	r := newRig(t)
	old, fresh := events.NewID(), events.NewID()
	decide := func(id uuid.UUID) {
		if _, err := r.store.Append(r.within(time.Second), eventstore.Append{Command: id}); err != nil {
			t.Fatal(err)
		}
	}
	known := func(id uuid.UUID) bool {
		o, err := r.store.Outcome(r.within(time.Second), id)
		if err != nil {
			t.Fatal(err)
		}
		return o != nil
	}
	decide(old)
	r.clock.advance(eventstore.OutcomeLifetime + time.Second)
	decide(fresh)
	o := r.options(alone{})
	o.Forget = 10 * time.Millisecond
	_, stop := r.run(o)
	defer stop()
	r.eventually("the old one is forgotten", func() bool { return !known(old) })
	if !known(fresh) {
		t.Error("what was decided just now is forgotten")
	}
}
