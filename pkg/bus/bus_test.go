package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

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

func TestEnding(t *testing.T) {
	s := bustest.Server(t)
	here, there := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{})
	op := uuid.New()
	recorded := []events.Event{{Stream: events.NewStream("operation", op), Version: 1, Type: "operation.requested", Data: []byte(`{"a":1}`), Position: events.Position{Era: 1, Tx: 7, Seq: 2}}}
	told := func(t *testing.T, ended <-chan []events.Event) []events.Event {
		t.Helper()
		select {
		case got := <-ended:
			return got
		case <-time.After(5 * time.Second):
			t.Fatal("not told")
			return nil
		}
	}
	t.Run("is told to all who wait for it", func(t *testing.T) {
		first, stop := there.Ending(op)
		defer stop()
		second, stopSecond := here.Ending(op)
		defer stopSecond()
		other, stopOther := there.Ending(uuid.New())
		defer stopOther()
		for range 3 { // more often than anybody takes it
			if err := here.Ended(op, recorded); err != nil {
				t.Fatal(err)
			}
		}
		for _, ended := range []<-chan []events.Event{first, second} {
			if got := told(t, ended); len(got) != 1 || got[0].Type != "operation.requested" || string(got[0].Data) != `{"a":1}` {
				t.Errorf("got %+v", got)
			}
		}
		if here.LastEnd() != recorded[0].Position || there.LastEnd() != recorded[0].Position {
			t.Errorf("the last end is at %v and %v", here.LastEnd(), there.LastEnd())
		}
		if len(other) != 0 {
			t.Error("told of another operation")
		}
	})
	t.Run("is told without its events where they are many", func(t *testing.T) {
		op := uuid.New()
		ended, stop := there.Ending(op)
		defer stop()
		if err := here.Ended(op, slices.Repeat(recorded, 1000)); err != nil {
			t.Fatal(err)
		}
		if got := told(t, ended); got != nil {
			t.Errorf("got %d events", len(got))
		}
	})
}

func TestPresence(t *testing.T) {
	s := bustest.Server(t)
	here, there := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{})
	var now atomic.Int64 // seconds
	roster, err := there.Roster(func() time.Time { return time.Unix(now.Load(), 0) })
	if err != nil {
		t.Fatal(err)
	}
	defer roster.Close()
	node := uuid.New()
	known := func() string {
		var out []string
		for _, s := range roster.Services() {
			out = append(out, fmt.Sprint(s.Domain, " ", s.Name, " ", s.Dependencies["hypervisor"], " ", s.Silent))
		}
		return strings.Join(out, "; ")
	}
	is := func(t *testing.T, want string) {
		t.Helper()
		eventually(t, "known is "+want, func() bool { return known() == want })
	}
	announce := func(ctx context.Context, detail string) (stop func()) {
		self := node
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		wg.Go(func() {
			err := here.Announce(ctx, func(context.Context) bus.Presence {
				return bus.Presence{Domain: "compute", Node: self, Name: "n1", Dependencies: map[string]string{"hypervisor": detail}}
			})
			if err != nil {
				t.Error(err)
			}
		})
		return func() { cancel(); wg.Wait() }
	}
	stop := announce(t.Context(), "hangs")
	is(t, "compute n1 hangs 0s")
	found := func(t *testing.T, ref string, want uuid.UUID, wantErr error) {
		t.Helper()
		if got, err := roster.Node(ref); got != want || !errors.Is(err, wantErr) {
			t.Errorf("node %s is %s, %v; want %s, %v", ref, got, err, want, wantErr)
		}
	}
	found(t, "n1", node, nil)
	found(t, node.String(), node, nil)
	found(t, "n2", uuid.Nil, nil)
	t.Run("who comes later asks", func(t *testing.T) {
		late, err := there.Roster(time.Now)
		if err != nil {
			t.Fatal(err)
		}
		defer late.Close()
		eventually(t, "it knows", func() bool { return len(late.Services()) == 1 })
	})
	stop()
	is(t, "")
	t.Run("silence", func(t *testing.T) {
		stop := announce(t.Context(), "")
		is(t, "compute n1  0s")
		stop()
		is(t, "")
		// One that is killed does not say that it leaves.
		data, err := json.Marshal(bus.Presence{Domain: "compute", Node: node, Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := bustest.Conn(t, s).Publish(events.PresenceSubject, data); err != nil {
			t.Fatal(err)
		}
		is(t, "compute n1  0s")
		now.Add(30)
		is(t, "compute n1  30s")
		found(t, "n1", node, nil)
		again := uuid.New() // the same host, with a new data dir
		node, again = again, node
		stop = announce(t.Context(), "")
		eventually(t, "both are known", func() bool { return len(roster.Services()) == 2 })
		found(t, "n1", node, nil)
		found(t, again.String(), again, nil)
		node = uuid.New() // and another that took the name
		alike := announce(t.Context(), "")
		eventually(t, "all are known", func() bool { return len(roster.Services()) == 3 })
		found(t, "n1", uuid.Nil, bus.ErrAmbiguous)
		alike()
		stop()
		now.Add(3600)
		is(t, "")
	})
}
