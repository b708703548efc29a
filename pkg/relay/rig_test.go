package relay_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
