package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOrderPerTargetWhileTargetsAreConcurrent(t *testing.T) {
	b := bustest.New(t, bus.Options{Concurrency: 4})
	targets := []uuid.UUID{uuid.New(), uuid.New(), uuid.New(), uuid.New()}
	want := map[uuid.UUID][]uuid.UUID{}
	for range 20 {
		for _, target := range targets {
			cmd := command(target)
			want[target] = append(want[target], cmd.ID)
			publish(t, b, cmd, 0)
		}
	}
	var mu sync.Mutex
	got := map[uuid.UUID][]uuid.UUID{}
	var at, most, overlaps int
	busy := map[uuid.UUID]bool{}
	meet := make(chan struct{}) // closed when all four targets are being handled at once
	consume(t, b, func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
		mu.Lock()
		if at++; at > most {
			if most = at; most == len(targets) {
				close(meet)
			}
		}
		if busy[cmd.Target] {
			overlaps++
		}
		busy[cmd.Target] = true
		got[cmd.Target] = append(got[cmd.Target], cmd.ID)
		mu.Unlock()
		select {
		case <-meet:
		case <-ctx.Done():
			return bus.Decision{}, errors.New("the targets were never handled at once")
		}
		mu.Lock()
		defer mu.Unlock()
		at--
		busy[cmd.Target] = false
		return bus.Decision{Command: cmd.ID}, nil
	})
	eventually(t, "all handled", func() bool {
		mu.Lock()
		defer mu.Unlock()
		for _, target := range targets {
			if len(got[target]) < len(want[target]) {
				return false
			}
		}
		return true
	})
	mu.Lock()
	defer mu.Unlock()
	if overlaps != 0 || most > 4 {
		t.Errorf("%d overlaps within a target, %d at once", overlaps, most)
	}
	for _, target := range targets {
		if !slices.Equal(got[target], want[target]) {
			t.Errorf("target %s: out of order", target)
		}
	}
}

// A window smaller than the backlog does not stop the flow, and no more than it is held.
func TestWindow(t *testing.T) {
	b := bustest.New(t, bus.Options{Window: 3, Concurrency: 2})
	var got seen
	var cmds []events.Command
	for range 50 {
		cmd := command(uuid.New())
		cmds = append(cmds, cmd)
		publish(t, b, cmd, 0)
	}
	consume(t, b, got.accept)
	for _, cmd := range cmds {
		eventually(t, "handled", func() bool { return got.count(cmd.ID) == 1 })
	}
}

// A poison command neither stops the others nor comes for ever: at the Nth delivery it is parked and laid aside.
func TestPoison(t *testing.T) {
	for name, poison := range map[string]func() (bus.Decision, error){
		"Error": func() (bus.Decision, error) { return bus.Decision{}, errors.New("no way") },
		"Panic": func() (bus.Decision, error) { panic("no way") },
	} {
		t.Run(name, func(t *testing.T) {
			s := bustest.Server(t)
			var parked, bad seen
			b := bustest.On(t, s, bus.Options{
				MaxDeliveries: 3, Backoff: time.Millisecond, Concurrency: 1,
				OnDeadLetter: func(_ context.Context, cmd events.Command) error {
					if parked.note(cmd); parked.count(cmd.ID) == 1 {
						return errors.New("the store is away once")
					}
					return nil
				},
			})
			cmd := command(uuid.New())
			var cured atomic.Bool
			consume(t, b, func(_ context.Context, c events.Command) (bus.Decision, error) {
				if c.ID == cmd.ID {
					if bad.note(c); !cured.Load() {
						return poison()
					}
				}
				return bus.Decision{Command: c.ID}, nil
			})
			publish(t, b, cmd, 0)
			for range 10 {
				if _, err := b.Ask(within(t, 5*time.Second), command(cmd.Target)); err != nil {
					t.Fatalf("another command to the same target: %v", err)
				}
			}
			var letters []bus.DeadLetter
			eventually(t, "a dead letter", func() bool {
				var err error
				if letters, err = b.DeadLetters(within(t, 5*time.Second)); err != nil {
					t.Fatal(err)
				}
				return len(letters) == 1
			})
			if bad.count(cmd.ID) != 2 || parked.count(cmd.ID) != 2 {
				t.Errorf("handled %d times, parked %d times; want 2 and 2", bad.count(cmd.ID), parked.count(cmd.ID))
			}
			l := letters[0]
			if l.Reason != "deliveries" || l.Subject != cmd.Subject() || l.Command == nil || l.Command.ID != cmd.ID {
				t.Errorf("dead letter: %+v", l)
			}
			nc := bustest.Conn(t, s)
			eventually(t, "off the queue", func() bool { return queued(t, nc) == 0 })

			cured.Store(true)
			if err := b.Retry(within(t, 5*time.Second), l.Seq); err != nil {
				t.Fatal(err)
			}
			eventually(t, "handled after a retry", func() bool { return bad.count(cmd.ID) == 3 })
			if _, err := b.DeadLetter(within(t, 5*time.Second), l.Seq); !errors.Is(err, bus.ErrNoDeadLetter) {
				t.Errorf("after a retry the dead letter: %v", err)
			}
		})
	}
}

func TestUndecodable(t *testing.T) {
	s := bustest.Server(t)
	b, nc := bustest.On(t, s, bus.Options{}), bustest.Conn(t, s)
	cmd := command(uuid.New())
	other := command(uuid.New())
	for _, body := range [][]byte{[]byte("{"), encode(t, other), nil} {
		if err := nc.Publish(cmd.Subject(), body); err != nil {
			t.Fatal(err)
		}
	}
	var got seen
	consume(t, b, got.accept)
	var letters []bus.DeadLetter
	eventually(t, "all are dead letters", func() bool {
		var err error
		if letters, err = b.DeadLetters(within(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		return len(letters) == 3
	})
	if n, err := b.CountDeadLetters(within(t, 5*time.Second)); n != 3 || err != nil {
		t.Errorf("%d are counted: %v", n, err)
	}
	if len(got.ids) != 0 {
		t.Errorf("handled: %v", got.ids)
	}
	bodies := 0
	for _, l := range letters {
		if l.Reason != "undecodable" || l.Command != nil || l.Detail == "" {
			t.Errorf("dead letter %+v", l)
		}
		if string(l.Body) == "{" {
			bodies++
		}
		if err := b.Retry(within(t, 5*time.Second), l.Seq); !errors.Is(err, bus.ErrUndecodable) {
			t.Errorf("retry: %v", err)
		}
		if err := b.Drop(within(t, 5*time.Second), l.Seq); err != nil {
			t.Errorf("drop: %v", err)
		}
		if err := b.Drop(within(t, 5*time.Second), l.Seq); !errors.Is(err, bus.ErrNoDeadLetter) {
			t.Errorf("second drop: %v", err)
		}
	}
	if bodies != 1 {
		t.Errorf("the body is kept in %d letters, want 1", bodies)
	}
}

// While the store is away a command is tried again for as long as it takes, and not counted.
func TestTransientFailureDoesNotCount(t *testing.T) {
	b := bustest.New(t, bus.Options{MaxDeliveries: 2, Backoff: time.Millisecond, TryTime: 20 * time.Millisecond})
	var tries atomic.Int32
	consume(t, b, func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
		switch n := tries.Add(1); {
		case n%2 == 0:
			<-ctx.Done()
			return bus.Decision{}, fmt.Errorf("load: %w", ctx.Err())
		case n < 8:
			return bus.Decision{}, fmt.Errorf("load: %w", eventstore.ErrUnavailable)
		}
		return bus.Decision{Command: cmd.ID}, nil
	})
	if _, err := b.Ask(within(t, 10*time.Second), command(uuid.New())); err != nil {
		t.Fatal(err)
	}
	if letters, err := b.DeadLetters(within(t, 5*time.Second)); err != nil || len(letters) != 0 {
		t.Fatalf("%d dead letters, %v", len(letters), err)
	}
}

// A handler that takes longer than the server waits for an ack is not run a second time, nor is a command that waits
// behind it.
func TestSlowHandlerIsNotDoubled(t *testing.T) {
	const ackWait = 150 * time.Millisecond
	s := bustest.Server(t)
	o := bus.Options{AckWait: ackWait}
	b, other := bustest.On(t, s, o), bustest.On(t, s, o)
	var got seen
	slow := func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
		defer got.note(cmd)
		select { // the slowness is the case itself
		case <-time.After(4 * ackWait):
		case <-ctx.Done():
		}
		return bus.Decision{Command: cmd.ID}, nil
	}
	consume(t, b, slow)
	consume(t, other, slow)
	first, second := command(uuid.New()), command(uuid.Nil)
	second.Target = first.Target
	publish(t, b, first, 0)
	publish(t, b, second, 0)
	nc := bustest.Conn(t, s)
	eventually(t, "both acknowledged", func() bool { return queued(t, nc) == 0 })
	if got.count(first.ID) != 1 || got.count(second.ID) != 1 {
		t.Fatalf("handled %d and %d times", got.count(first.ID), got.count(second.ID))
	}
}

// When ctx ends, what is under way comes to its end and what is not is given back at once.
func TestDrain(t *testing.T) {
	s := bustest.Server(t)
	b := bustest.On(t, s, bus.Options{Concurrency: 1})
	begun, finishing := make(chan struct{}), make(chan struct{})
	finish := sync.OnceFunc(func() { close(finishing) })
	var got, after seen
	stop := consume(t, b, func(ctx context.Context, cmd events.Command) (bus.Decision, error) {
		close(begun)
		<-finishing
		if ctx.Err() != nil {
			t.Error("a handler under way lost its context")
		}
		return got.accept(ctx, cmd)
	})
	t.Cleanup(finish)
	running, waiting := command(uuid.New()), command(uuid.New())
	publish(t, b, running, 0)
	<-begun
	publish(t, b, waiting, 0)
	var stopped sync.WaitGroup
	stopped.Go(stop)
	next := bustest.On(t, s, bus.Options{})
	consume(t, next, after.accept)
	eventually(t, "given back and taken by another", func() bool { return after.count(waiting.ID) == 1 })
	finish()
	stopped.Wait()
	if got.count(running.ID) != 1 || after.count(running.ID) != 0 {
		t.Fatalf("what was under way: handled %d and %d times", got.count(running.ID), after.count(running.ID))
	}
}

func TestConnectionClosed(t *testing.T) {
	s := bustest.Server(t)
	nc := bustest.Conn(t, s)
	b, err := bus.New(nc, bus.Options{Log: bustest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.EnsureStreams(within(t, 5*time.Second)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Consume(context.Background(), []events.Address{anyNode}, new(seen).accept) }()
	if _, err := b.Ask(within(t, 5*time.Second), command(uuid.New())); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("Consume ended without an error")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("Consume goes on without a connection")
	}
}
