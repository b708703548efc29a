package relay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/bus/natsserver"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a store, a server and whatever relays run between them.
type rig struct {
	*testing.T
	store  *memory.Store
	server *natsserver.Server
	bus    *bus.Bus
	nc     *nats.Conn
	js     jetstream.JetStream
	clock  *clock
}

func newRig(t *testing.T) *rig {
	t.Helper()
	c := &clock{}
	r := &rig{T: t, store: memory.New(c.now), server: bustest.Server(t), clock: c}
	r.bus = bustest.On(t, r.server, bus.Options{})
	r.nc = bustest.Conn(t, r.server)
	js, err := jetstream.New(r.nc)
	if err != nil {
		t.Fatal(err)
	}
	r.js = js
	return r
}

// clock is the real one, set forward.
type clock struct {
	mu      sync.Mutex
	forward time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.forward).UTC()
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forward += d
}

func (r *rig) options(l relay.Leader) relay.Options {
	return relay.Options{
		Leader: l, Store: r.store, Bus: r.bus, Log: bustest.Quiet, Clock: r.clock.now,
		Domain: func(string) string { return "compute" },
		Expire: func(_ context.Context, cmd events.Command) error {
			return fmt.Errorf("command %s is not to expire here", cmd.ID)
		},
		Poll: 20 * time.Millisecond, Sweep: 10 * time.Millisecond, Check: 50 * time.Millisecond, Retry: 10 * time.Millisecond,
	}
}

// run runs a relay until the test's end or stop.
func (r *rig) run(o relay.Options) (_ *relay.Relay, stop func()) {
	r.Helper()
	rel := relay.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { rel.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	r.Cleanup(stop)
	return rel, stop
}

func (r *rig) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	r.Cleanup(cancel)
	return ctx
}

// append records n events of a stream of their own, and commands.
func (r *rig) append(n int, send ...events.Command) {
	r.Helper()
	drafts := make([]events.Draft, n)
	for i := range drafts {
		drafts[i] = events.Draft{Type: "vm.created", Schema: 1, Data: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}
	}
	a := eventstore.Append{Send: send}
	a.Streams = append(a.Streams, eventstore.StreamAppend{Stream: events.NewStream("vm", uuid.New()), Events: drafts})
	if _, err := r.store.Append(r.within(5*time.Second), a); err != nil {
		r.Fatal(err)
	}
}

// published returns the ids in the event stream and checks that subjects and headers are right.
func (r *rig) published() []uuid.UUID {
	r.Helper()
	ctx := r.within(10 * time.Second)
	s, err := r.js.Stream(ctx, events.EventStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		r.Fatal(err)
	}
	var ids []uuid.UUID
	for seq := s.CachedInfo().State.FirstSeq; seq > 0 && seq <= s.CachedInfo().State.LastSeq; seq++ {
		m, err := s.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
			return ids
		}
		if err != nil {
			r.Fatal(err)
		}
		var e events.Event
		if err := json.Unmarshal(m.Data, &e); err != nil {
			r.Fatal(err)
		}
		if m.Subject != e.Subject("compute") || m.Header.Get(events.PositionHeader) != e.Position.String() ||
			m.Header.Get(jetstream.MsgIDHeader) != e.ID.String() {
			r.Fatalf("message %d: subject %s, headers %v", seq, m.Subject, m.Header)
		}
		ids = append(ids, e.ID)
	}
	return ids
}

// log returns the ids in the store.
func (r *rig) log() []uuid.UUID {
	r.Helper()
	page, err := r.store.Read(r.within(5*time.Second), events.Position{}, eventstore.ReadOptions{Limit: 10_000})
	if err != nil {
		r.Fatal(err)
	}
	var ids []uuid.UUID
	for _, e := range page.Events {
		ids = append(ids, e.ID)
	}
	return ids
}

// complete waits until the event stream says exactly what the store says, in its order.
func (r *rig) complete() {
	r.Helper()
	r.eventually("the event stream is the log", func() bool { return fmt.Sprint(r.published()) == fmt.Sprint(r.log()) })
}

func (r *rig) eventually(what string, holds func() bool) {
	r.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	r.Fatalf("never: %s", what)
}

// alone leads always.
type alone struct{}

func (alone) Lead(ctx context.Context, _ string) (context.Context, func(), error) {
	return ctx, func() {}, nil
}

// lock leads one at a time, until depose.
type lock struct {
	held chan struct{}

	mu     sync.Mutex
	depose context.CancelCauseFunc
}

var errDeposed = errors.New("deposed")

func newLock() *lock { return &lock{held: make(chan struct{}, 1)} }

func (l *lock) Lead(ctx context.Context, _ string) (context.Context, func(), error) {
	select {
	case l.held <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	lead, cancel := context.WithCancelCause(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.depose = cancel
	return lead, func() { cancel(context.Canceled); <-l.held }, nil
}

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
