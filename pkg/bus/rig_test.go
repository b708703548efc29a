package bus_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var anyNode = events.Address{Domain: "compute", Node: events.AnyNode}

func command(target uuid.UUID) events.Command {
	return events.Command{
		ID: events.NewID(), To: anyNode, Type: "vm.start", Target: target,
		Deadline: time.Now().Add(time.Minute).UTC().Truncate(time.Microsecond),
	}
}

// within gives a test's calls a deadline.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until something holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// consume runs Consume until the test's end, or until stop is called, and checks that it ends without an error.
func consume(t testing.TB, b *bus.Bus, handle bus.Handler, addresses ...events.Address) (stop func()) {
	t.Helper()
	if len(addresses) == 0 {
		addresses = []events.Address{anyNode}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := b.Consume(ctx, addresses, handle); err != nil {
			t.Errorf("Consume: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// seen notes the commands that a handler got, in order.
type seen struct {
	mu  sync.Mutex
	ids []uuid.UUID
}

func (s *seen) note(cmd events.Command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, cmd.ID)
}

func (s *seen) count(id uuid.UUID) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, i := range s.ids {
		if i == id {
			n++
		}
	}
	return n
}

func (s *seen) accept(_ context.Context, cmd events.Command) (bus.Decision, error) {
	s.note(cmd)
	return bus.Decision{Command: cmd.ID}, nil
}

// stream looks at a stream past the bus.
func stream(t testing.TB, nc *nats.Conn, name string) *jetstream.StreamInfo {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(within(t, 5*time.Second), name)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo()
}

// queued is how many commands are in the stream. (One message more lies there for ever.)
func queued(t testing.TB, nc *nats.Conn) uint64 {
	t.Helper()
	return stream(t, nc, events.CommandStream).State.Msgs - 1
}

func deleteStream(t testing.TB, nc *nats.Conn, name string) {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(within(t, 5*time.Second), name); err != nil {
		t.Fatal(err)
	}
}

func publish(t testing.TB, b *bus.Bus, cmd events.Command, attempt int) {
	t.Helper()
	if err := b.Publish(within(t, 5*time.Second), cmd, attempt); err != nil {
		t.Fatal(err)
	}
}
