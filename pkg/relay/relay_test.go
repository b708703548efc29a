package relay_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/relay"
)

func TestEvents(t *testing.T) {
	t.Run("BacklogThenNewOnesInOrder", func(t *testing.T) {
		r := newRig(t)
		r.append(600) // more than two pages
		rel, _ := r.run(r.options(alone{}))
		r.complete()
		for range 20 {
			r.append(3)
		}
		r.complete()
		last, err := r.store.End(r.within(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if s := rel.Status(); !s.Leading || s.Events != nil || s.Position.Compare(last) > 0 || s.Position.IsZero() {
			t.Fatalf("status %+v", s)
		}
	})
	t.Run("WokenByANudge", func(t *testing.T) {
		r := newRig(t)
		o := r.options(alone{})
		o.Poll = time.Hour
		rel, _ := r.run(o)
		r.eventually("it leads", func() bool { return rel.Status().Leading })
		r.append(1)
		r.eventually("relayed", func() bool { // a nudge before it listens is lost, as it may be
			if err := r.bus.Nudge(); err != nil {
				t.Fatal(err)
			}
			return len(r.published()) == 1
		})
	})
	t.Run("GoesOnAfterARestart", func(t *testing.T) {
		r := newRig(t)
		for range 3 {
			r.append(5)
			_, stop := r.run(r.options(alone{}))
			r.complete()
			stop()
		}
	})
	t.Run("LostStreamIsFilledAgain", func(t *testing.T) {
		for name, lose := range map[string]func(r *rig) error{
			"Deleted": func(r *rig) error { return r.js.DeleteStream(r.within(5*time.Second), events.EventStream) },
			"Purged": func(r *rig) error {
				s, err := r.js.Stream(r.within(5*time.Second), events.EventStream)
				if err != nil {
					return err
				}
				return s.Purge(r.within(5 * time.Second))
			},
			"MadeAnewByAnother": func(r *rig) error {
				if err := r.js.DeleteStream(r.within(5*time.Second), events.EventStream); err != nil {
					return err
				}
				return r.bus.EnsureStreams(r.within(5 * time.Second))
			},
		} {
			t.Run(name, func(t *testing.T) {
				r := newRig(t)
				r.append(300)
				r.run(r.options(alone{}))
				r.complete()
				for range 2 {
					if err := lose(r); err != nil {
						t.Fatal(err)
					}
					r.complete() // also while nothing is appended
					r.append(2)
					r.complete()
				}
			})
		}
	})
	t.Run("RestartedServerKeepsThem", func(t *testing.T) {
		r := newRig(t)
		r.append(10)
		_, stop := r.run(r.options(alone{}))
		r.complete()
		stop()
		// A relay that found the stream as it was has published nothing twice: the sequence says so.
		_, stop = r.run(r.options(alone{}))
		r.append(1)
		r.complete()
		stop()
		s, err := r.js.Stream(r.within(time.Second), events.EventStream)
		if err != nil {
			t.Fatal(err)
		}
		if last := s.CachedInfo().State.LastSeq; last != 11 {
			t.Fatalf("last sequence %d, want 11", last)
		}
	})
	t.Run("AnotherLogsStream", func(t *testing.T) {
		r := newRig(t)
		r.append(3)
		_, stop := r.run(r.options(alone{}))
		r.complete()
		stop()
		o := r.options(alone{})
		o.Store = memory.New(time.Now) // the store was set back
		rel, _ := r.run(o)
		r.eventually("it says so", func() bool {
			err := rel.Status().Events
			return err != nil && strings.Contains(err.Error(), "events that the store does not")
		})
		if len(r.published()) != 3 {
			t.Fatal("it published to the stream of another log")
		}
	})
}

// hung is a store that answers no read while it is told to hang.
type hung struct {
	relay.Store
	hangs, hanging atomic.Bool
}

func (h *hung) Read(ctx context.Context, after events.Position, o eventstore.ReadOptions) (eventstore.Page, error) {
	if h.hangs.Load() {
		h.hanging.Store(true)
		<-ctx.Done()
		return eventstore.Page{}, ctx.Err()
	}
	return h.Store.Read(ctx, after, o)
}

func TestStalledRelay(t *testing.T) {
	r := newRig(t)
	r.append(3)
	o := r.options(alone{})
	store := &hung{Store: r.store}
	o.Store = store
	rel, stop := r.run(o)
	defer stop()
	r.complete()
	store.hangs.Store(true)
	r.eventually("a read hangs", store.hanging.Load)
	r.clock.advance(7 * time.Second)
	if s := rel.Status(); s.Stalled < 7*time.Second || s.Lag < 7*time.Second || s.Events != nil {
		t.Errorf("while the store hangs it is %+v", s)
	}
	r.clock.advance(-7 * time.Second)
}

// Two relays that both believe they lead: the one whose view is old gets nothing in, and steps down.
func TestDeposedRelay(t *testing.T) {
	t.Run("OldViewGetsNothingIn", func(t *testing.T) {
		r := newRig(t)
		r.append(4)
		page, err := r.store.Read(r.within(time.Second), events.Position{}, eventstore.ReadOptions{})
		if err != nil {
			t.Fatal(err)
		}
		domain := func(string) string { return "compute" }
		old, err := r.bus.Tail(r.within(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		other := bustest.On(t, r.server, bus.Options{})
		if _, err := other.PublishEvents(r.within(time.Second), old, page.Events[:3], domain); err != nil {
			t.Fatal(err)
		}
		tail, err := r.bus.PublishEvents(r.within(time.Second), old, page.Events[:3], domain)
		if !errors.Is(err, bus.ErrTailMoved) || tail != old {
			t.Fatalf("published with an old view: %+v, %v", tail, err)
		}
		if got, want := r.published(), r.log()[:3]; !slices.Equal(got, want) {
			t.Fatalf("the stream has %v, want what the new leader published: %v", got, want)
		}
		// What the new leader has not published yet gets in only where it belongs.
		if _, err := r.bus.PublishEvents(r.within(time.Second), old, page.Events, domain); !errors.Is(err, bus.ErrTailMoved) {
			t.Fatalf("published with an old view: %v", err)
		}
		if got, want := r.published(), r.log(); !slices.Equal(got, want[:len(got)]) {
			t.Fatalf("the stream has %v, the log %v", got, want)
		}
	})
	t.Run("TwoLeadersNeverDoubleOrReorder", func(t *testing.T) {
		r := newRig(t)
		r.run(r.options(alone{}))
		o := r.options(alone{})
		o.Bus = bustest.On(t, r.server, bus.Options{})
		r.run(o)
		for range 100 {
			r.append(3)
		}
		r.complete()
	})
	t.Run("StandbyTakesOver", func(t *testing.T) {
		r := newRig(t)
		l := newLock()
		first, stop := r.run(r.options(l))
		r.eventually("the first leads", func() bool { return first.Status().Leading })
		second, _ := r.run(r.options(l))
		r.append(3)
		r.complete()
		if s := second.Status(); s.Leading || s.Lead != nil {
			t.Fatalf("the standby: %+v", s)
		}
		stop()
		r.append(3)
		r.complete()
		if first.Status().Leading || !second.Status().Leading {
			t.Fatal("the second does not lead")
		}
	})
	t.Run("LostLeadershipIsSoughtAgain", func(t *testing.T) {
		r := newRig(t)
		l := newLock()
		o := r.options(l)
		o.Retry = 200 * time.Millisecond
		rel, _ := r.run(o)
		r.eventually("it leads", func() bool { return rel.Status().Leading })
		l.mu.Lock()
		l.depose(errDeposed)
		l.mu.Unlock()
		r.eventually("it says that it was deposed", func() bool { return errors.Is(rel.Status().Lead, errDeposed) })
		r.append(3)
		r.complete()
		if s := rel.Status(); !s.Leading || s.Lead != nil {
			t.Fatalf("leading again: %+v", s)
		}
	})
}
