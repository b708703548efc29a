package storage_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/services/storage"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/dir"
	"horcrux/services/storage/backend/fake"
	"horcrux/services/storage/image"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// commands is a bus that hands commands to the service on this node and keeps those for others.
type commands struct {
	to   events.Address
	own  chan events.Command
	mu   sync.Mutex
	sent []events.Command // to others
}

func (c *commands) Publish(_ context.Context, cmd events.Command, _ int) error {
	if cmd.To == c.to {
		c.own <- cmd
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, cmd)
	return nil
}

func (c *commands) Ended(uuid.UUID, []events.Event) error { return nil }

func (c *commands) Consume(ctx context.Context, _ []events.Address, handle bus.Handler) error {
	for {
		select {
		case cmd := <-c.own:
			if _, err := handle(ctx, cmd); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *commands) toOthers() []events.Command {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]events.Command(nil), c.sent...)
}

// host is a node with a store and a pool; the service on it comes and goes.
type host struct {
	*testing.T
	node   uuid.UUID
	store  *memory.Store
	used   eventstore.Store // by the service: store, or one around it
	bus    *commands
	base   string
	driver backend.Driver
	ahead  *atomic.Int64 // of the service's clock, in nanoseconds
	svc    *storage.Service
	stop   func()
}

// newHost returns a host whose service runs, for a test that runs beside others. A nil driver is the real one on a directory.
func newHost(t *testing.T, driver backend.Driver) *host {
	t.Helper()
	t.Parallel()
	node := events.NewID()
	store := memory.New(nil)
	h := &host{T: t, node: node, store: store, used: store, base: t.TempDir(), driver: driver, ahead: new(atomic.Int64)}
	h.bus = &commands{to: events.Address{Domain: storage.Domain, Node: node.String()}, own: make(chan events.Command, 16)}
	if driver == nil {
		h.driver = dir.Driver{Images: image.Library{Dirs: []string{h.images()}}}
	}
	must(t, os.Mkdir(h.images(), 0o700))
	h.start()
	t.Cleanup(func() { h.stop() })
	h.until("the pool can be used", func() bool { return h.svc.Ready(t.Context()) == nil })
	return h
}

// in is the host in a subtest.
func (h *host) in(t *testing.T) *host {
	sub := *h
	sub.T = t
	return &sub
}

func (h *host) pool() string   { return filepath.Join(h.base, "volumes") }
func (h *host) images() string { return filepath.Join(h.base, "images") }

func (h *host) start() {
	ctx, cancel := context.WithCancel(context.Background())
	h.svc = storage.New(storage.Options{
		Node: h.node, Store: h.used, Bus: h.bus, LocalPath: h.pool(), ImageDirs: []string{h.images()},
		Drivers: map[string]backend.Driver{"dir": h.driver}, Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return time.Now().Add(time.Duration(h.ahead.Load())) },
	})
	done := make(chan error, 1)
	go func() { done <- h.svc.Run(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			h.Errorf("run: %v", err)
		}
	})
}

// data is the data of a create that is in order.
func (h *host) data(name string) wire.CreateData {
	return wire.CreateData{Pool: storage.LocalID(h.node), Name: name, SizeGB: 1, Format: "raw", Thin: true}
}

// command is one that a user's request became.
func (h *host) command(verb string, target uuid.UUID, data any) events.Command {
	h.Helper()
	raw, err := json.Marshal(data)
	must(h.T, err)
	return events.Command{
		ID: events.NewID(), To: h.bus.to, Type: "volume." + verb, Target: target, Data: raw,
		Meta: events.Meta{Actor: "uid:0", Operation: events.NewID()}, Deadline: time.Now().Add(10 * time.Minute),
	}
}

// ask records an operation as the gateway does and publishes its command.
func (h *host) ask(cmd events.Command) (op uuid.UUID) {
	h.Helper()
	op = cmd.Meta.Operation
	requested := operation.Codec.Encode(operation.Requested{Type: cmd.Type, Command: cmd.ID, Resource: cmd.Stream(), Deadline: cmd.Deadline})
	_, err := h.store.Append(h.Context(), eventstore.Append{
		Meta: cmd.Meta, Send: []events.Command{cmd},
		Streams: []eventstore.StreamAppend{{Stream: events.NewStream(operation.Kind, op), Events: []events.Draft{requested}}},
	})
	must(h.T, err)
	must(h.T, h.bus.Publish(h.Context(), cmd, 0))
	return op
}

func (h *host) create(id uuid.UUID, data wire.CreateData) uuid.UUID {
	h.Helper()
	return h.ask(h.command("create", id, data))
}

func (h *host) delete(id uuid.UUID) uuid.UUID {
	h.Helper()
	return h.ask(h.command("delete", id, wire.DeleteData{}))
}

// step sends a command as the process of another service does.
func (h *host) step(verb string, target uuid.UUID, data any, deadline time.Time) events.Command {
	h.Helper()
	cmd := h.command(verb, target, data)
	cmd.Step, cmd.ReplyTo, cmd.Deadline = "disk 0", &events.Address{Domain: "compute", Node: h.node.String()}, deadline
	_, err := h.store.Append(h.Context(), eventstore.Append{Send: []events.Command{cmd}})
	must(h.T, err)
	must(h.T, h.bus.Publish(h.Context(), cmd, 0))
	return cmd
}

func (h *host) events(s events.Stream) []events.Event {
	h.Helper()
	histories, err := h.store.Load(h.Context(), s)
	must(h.T, err)
	return histories[0].Events
}

// story is the events of a volume by their verbs.
func (h *host) story(id uuid.UUID) string {
	h.Helper()
	var verbs []string
	for _, e := range h.events(events.NewStream(wire.Kind, id)) {
		verbs = append(verbs, strings.TrimPrefix(e.Type, "volume."))
	}
	return strings.Join(verbs, " ")
}

func (h *host) wantStory(id uuid.UUID, want string) {
	h.Helper()
	h.until("the story is "+want, func() bool { return h.story(id) == want })
}

func (h *host) operation(op uuid.UUID) operation.View {
	h.Helper()
	var v operation.View
	for _, e := range h.events(events.NewStream(operation.Kind, op)) {
		var err error
		v, err = operation.Apply(v, e)
		must(h.T, err)
	}
	return v
}

// ended waits for an operation to end.
func (h *host) ended(op uuid.UUID) operation.View {
	h.Helper()
	var v operation.View
	h.until("the operation has ended", func() bool { v = h.operation(op); return v.State.Ended() })
	return v
}

func (h *host) succeeds(op uuid.UUID) {
	h.Helper()
	if v := h.ended(op); v.State != operation.StateSucceeded {
		h.Fatalf("operation %s: %+v", v.State, v.Error)
	}
}

// stored are the volumes in the pool.
func (h *host) stored() []backend.Volume {
	h.Helper()
	b, err := h.driver.Open(backend.Pool{ID: storage.LocalID(h.node), Path: h.pool()})
	must(h.T, err)
	list, err := b.Volumes(h.Context())
	must(h.T, err)
	return list
}

// idle says that nothing is left to do.
func (h *host) idle() bool {
	h.Helper()
	open, err := h.store.Open(h.Context(), storage.Domain+"/"+h.node.String())
	must(h.T, err)
	return len(open) == 0
}

func (h *host) until(what string, ok func() bool) {
	h.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			h.Fatalf("never: %s", what)
		}
	}
}

// wait waits for a channel to be closed.
func (h *host) wait(c <-chan struct{}) {
	h.Helper()
	select {
	case <-c:
	case <-time.After(20 * time.Second):
		h.Fatal("nothing happened")
	}
}

// trap is a driver that holds a call of its volumes, before or after its effect, until the service dies.
type trap struct {
	backend.Driver
	call  string // fake.Create or fake.Delete
	after bool
	armed atomic.Bool
	held  chan struct{} // closed when the call is held
}

func newTrap(d backend.Driver, call string, after bool) *trap {
	t := &trap{Driver: d, call: call, after: after, held: make(chan struct{})}
	t.armed.Store(true)
	return t
}

func (t *trap) Open(p backend.Pool) (backend.Backend, error) {
	b, err := t.Driver.Open(p)
	return &trapped{b, t}, err
}

// hold waits for the death of the service if the trap is set for this.
func (t *trap) hold(ctx context.Context, call string, after bool) error {
	if call != t.call || after != t.after || !t.armed.CompareAndSwap(true, false) {
		return nil
	}
	close(t.held)
	<-ctx.Done()
	return ctx.Err()
}

type trapped struct {
	backend.Backend
	trap *trap
}

func (b *trapped) Create(ctx context.Context, s backend.Spec) (backend.Volume, error) {
	if err := b.trap.hold(ctx, fake.Create, false); err != nil {
		return backend.Volume{}, err
	}
	v, err := b.Backend.Create(ctx, s)
	if herr := b.trap.hold(ctx, fake.Create, true); herr != nil {
		return backend.Volume{}, herr
	}
	return v, err
}

func (b *trapped) Delete(ctx context.Context, id uuid.UUID) error {
	if err := b.trap.hold(ctx, fake.Delete, false); err != nil {
		return err
	}
	err := b.Backend.Delete(ctx, id)
	if herr := b.trap.hold(ctx, fake.Delete, true); herr != nil {
		return herr
	}
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func name(i int) string { return fmt.Sprintf("data-%d", i) }
