package bus_test

import (
	"context"
	"errors"
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
	"horcrux/pkg/events"
	"horcrux/pkg/problem"
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

func TestAsk(t *testing.T) {
	t.Run("Accepted", func(t *testing.T) {
		b := bustest.New(t, bus.Options{})
		at := events.Position{Era: 1, Tx: 7, Seq: 9}
		consume(t, b, func(_ context.Context, cmd events.Command) (bus.Decision, error) {
			return bus.Decision{Command: cmd.ID, Position: at}, nil
		})
		cmd := command(uuid.New())
		d, err := b.Ask(within(t, 5*time.Second), cmd)
		if err != nil || d.Command != cmd.ID || d.Position != at || d.Rejection != nil {
			t.Fatalf("Ask: %+v, %v", d, err)
		}
	})
	t.Run("Rejected", func(t *testing.T) {
		s := bustest.Server(t)
		b, other := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{})
		consume(t, other, func(_ context.Context, cmd events.Command) (bus.Decision, error) {
			return bus.Decision{Command: cmd.ID, Rejection: problem.New(problem.NameTaken, "web-1 is taken")}, nil
		})
		d, err := b.Ask(within(t, 5*time.Second), command(uuid.New()))
		if err != nil || !errors.Is(d.Rejection, &problem.Problem{Code: problem.NameTaken}) {
			t.Fatalf("Ask: %+v, %v", d, err)
		}
	})
	t.Run("NobodyAnswers", func(t *testing.T) {
		s := bustest.Server(t)
		b := bustest.On(t, s, bus.Options{})
		if _, err := b.Ask(within(t, 50*time.Millisecond), command(uuid.New())); !errors.Is(err, bus.ErrNoDecision) {
			t.Fatalf("Ask: %v", err)
		}
		if n := queued(t, bustest.Conn(t, s)); n != 1 {
			t.Fatalf("%d commands in the stream, want the one that nobody took", n)
		}
	})
	t.Run("TwoWaitForOneCommand", func(t *testing.T) {
		b := bustest.New(t, bus.Options{})
		cmd := command(uuid.New())
		var got seen
		var asked sync.WaitGroup
		for range 2 {
			asked.Go(func() {
				if _, err := b.Ask(within(t, 5*time.Second), cmd); err != nil {
					t.Errorf("Ask: %v", err)
				}
			})
		}
		release := make(chan struct{})
		consume(t, b, func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
			<-release
			return got.accept(ctx, cmd)
		})
		eventually(t, "both wait", func() bool { return b.Waiting() == 2 })
		close(release)
		asked.Wait()
		if got.count(cmd.ID) != 1 {
			t.Fatalf("handled %d times", got.count(cmd.ID))
		}
	})
	t.Run("Unpublishable", func(t *testing.T) {
		b := bustest.New(t, bus.Options{})
		for name, mangle := range map[string]func(*events.Command){
			"wildcard":  func(c *events.Command) { c.To.Node = "*" },
			"no domain": func(c *events.Command) { c.To.Domain = "" },
			"no verb":   func(c *events.Command) { c.Type = "vm" },
			"space":     func(c *events.Command) { c.Type = "vm.start now" },
			"too large": func(c *events.Command) { c.Data = []byte(`"` + strings.Repeat("x", 5<<20) + `"`) },
		} {
			cmd := command(uuid.New())
			mangle(&cmd)
			if _, err := b.Ask(within(t, 5*time.Second), cmd); !errors.Is(err, bus.ErrUnpublishable) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	t.Run("RepliesGoToInboxesOnly", func(t *testing.T) {
		s := bustest.Server(t)
		b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
		sub, err := nc.SubscribeSync(events.NudgeSubject)
		if err != nil {
			t.Fatal(err)
		}
		cmd := command(uuid.New())
		m := nats.NewMsg(cmd.Subject())
		m.Data = encode(t, cmd)
		m.Header.Set(events.ReplyHeader, events.NudgeSubject)
		if err := nc.PublishMsg(m); err != nil {
			t.Fatal(err)
		}
		var got seen
		consume(t, b, got.accept)
		eventually(t, "handled", func() bool { return got.count(cmd.ID) == 1 })
		eventually(t, "acknowledged", func() bool { return queued(t, nc) == 0 })
		if n, _, err := sub.Pending(); err != nil || n != 0 {
			t.Fatalf("%d replies on a subject that is no inbox, %v", n, err)
		}
	})
}

// The same message id is swallowed within the window even when the first was consumed long ago: that is why whoever
// publishes again counts attempts.
func TestSameAttemptIsSwallowed(t *testing.T) {
	s := bustest.Server(t)
	b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
	var got seen
	consume(t, b, got.accept)
	cmd := command(uuid.New())

	before := stream(t, nc, events.CommandStream).State.LastSeq
	publish(t, b, cmd, 0)
	eventually(t, "consumed", func() bool {
		return got.count(cmd.ID) == 1 && queued(t, nc) == 0
	})
	publish(t, b, cmd, 0)
	if n := stream(t, nc, events.CommandStream).State.LastSeq - before; n != 1 {
		t.Fatalf("the stream took %d messages, want the second swallowed", n)
	}
	publish(t, b, cmd, 1)
	eventually(t, "the next attempt arrives", func() bool { return got.count(cmd.ID) == 2 })
}

// A work queue takes no two consumers whose filters overlap; the addresses of one domain do not.
func TestFiltersDoNotOverlap(t *testing.T) {
	s := bustest.Server(t)
	b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
	node := events.Address{Domain: "compute", Node: uuid.NewString()}
	var got seen
	consume(t, b, got.accept, anyNode, node)
	for _, a := range []events.Address{anyNode, node} {
		cmd := command(uuid.New())
		cmd.To = a
		if d, err := b.Ask(within(t, 5*time.Second), cmd); err != nil || d.Command != cmd.ID {
			t.Fatalf("%s: %v", a.Consumer(), err)
		}
	}
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	_, err = js.CreateConsumer(within(t, 5*time.Second), events.CommandStream, jetstream.ConsumerConfig{
		Durable: "compute", FilterSubject: "horcrux.v1.cmd.compute.>", AckPolicy: jetstream.AckExplicitPolicy,
	})
	var api *jetstream.APIError
	if !errors.As(err, &api) || api.ErrorCode != 10100 {
		t.Fatalf("an overlapping filter: %v, want it refused as not unique", err)
	}
}

func TestStreams(t *testing.T) {
	t.Run("MendedAndTuningKept", func(t *testing.T) {
		s := bustest.Server(t)
		b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream(t, nc, events.CommandStream).Config
		cfg.Subjects, cfg.MaxBytes = []string{"horcrux.v1.cmd.compute.>"}, 1<<20
		if _, err := js.UpdateStream(within(t, 5*time.Second), cfg); err != nil {
			t.Fatal(err)
		}
		if err := b.EnsureStreams(within(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		cfg = stream(t, nc, events.CommandStream).Config
		if len(cfg.Subjects) != 1 || cfg.Subjects[0] != events.AllCommands || cfg.MaxBytes != 1<<20 {
			t.Fatalf("subjects %v, %d bytes", cfg.Subjects, cfg.MaxBytes)
		}
	})
	t.Run("KeeperLaidOnce", func(t *testing.T) {
		s := bustest.Server(t)
		b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
		js, err := jetstream.New(nc)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := b.EnsureStreams(within(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
			if n := stream(t, nc, events.CommandStream).State.Msgs; n != 1 {
				t.Fatalf("%d messages in a queue without commands, want 1", n)
			}
			st, err := js.Stream(within(t, 5*time.Second), events.CommandStream)
			if err != nil {
				t.Fatal(err)
			}
			if err := st.Purge(within(t, 5*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("RemadeByPublish", func(t *testing.T) {
		s := bustest.Server(t)
		b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
		deleteStream(t, nc, events.CommandStream)
		publish(t, b, command(uuid.New()), 0)
		if n := queued(t, nc); n != 1 {
			t.Fatalf("%d messages", n)
		}
	})
	t.Run("RemadeUnderAConsumer", func(t *testing.T) {
		s := bustest.Server(t)
		b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
		var got seen
		consume(t, b, got.accept)
		for n := range 4 {
			if _, err := b.Ask(within(t, 10*time.Second), command(uuid.New())); err != nil {
				t.Fatalf("after %d losses: %v", n, err)
			}
			deleteStream(t, nc, events.CommandStream)
		}
	})
}

func TestNudges(t *testing.T) {
	s := bustest.Server(t)
	here, there := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{})
	nudged, stop := there.Nudges()
	defer stop()
	appended := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { here.ForwardNudges(ctx, appended) })
	defer func() { cancel(); wg.Wait() }()

	for range 3 {
		appended <- struct{}{}
		select {
		case <-nudged:
		case <-time.After(5 * time.Second):
			t.Fatal("no nudge")
		}
	}
	for range 100 { // nobody listens: they merge, and nothing blocks
		if err := here.Nudge(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "one of them waits", func() bool { return len(nudged) == 1 })
}
