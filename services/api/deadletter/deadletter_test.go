package deadletter_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/problem"
	"horcrux/services/api/deadletter"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A command that its service cannot handle becomes a dead letter, is not swept meanwhile, and ends by retry or drop.
func TestOffice(t *testing.T) {
	ctx := t.Context()
	store := memory.New(nil)
	b := bustest.New(t, bus.Options{
		MaxDeliveries: 2, Backoff: time.Millisecond,
		OnDeadLetter: func(ctx context.Context, cmd events.Command) error { return store.Park(ctx, cmd.ID) },
	})
	o := deadletter.Office{Bus: b, Store: store, Clock: time.Now}
	address := events.Address{Domain: "compute", Node: events.NewID().String()}
	var mended atomic.Bool
	handled := make(chan events.Command, 1)
	consuming, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() {
		done <- b.Consume(consuming, []events.Address{address}, func(_ context.Context, cmd events.Command) (bus.Decision, error) {
			if !mended.Load() {
				return bus.Decision{}, errors.New("cannot")
			}
			handled <- cmd
			return bus.Decision{Command: cmd.ID}, nil
		})
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	send := func() events.Command {
		op := events.NewID()
		cmd := events.Command{
			ID: events.NewID(), To: address, Type: "vm.start", Target: events.NewID(),
			Meta: events.Meta{Actor: "uid:0", Operation: op}, Deadline: time.Now().Add(time.Hour),
		}
		requested := operation.Codec.Encode(operation.Requested{Type: cmd.Type, Command: cmd.ID, Resource: cmd.Stream()})
		if _, err := store.Append(ctx, eventstore.Append{Send: []events.Command{cmd}, Streams: []eventstore.StreamAppend{
			{Stream: events.NewStream(operation.Kind, op), Events: []events.Draft{requested}},
		}}); err != nil {
			t.Fatal(err)
		}
		if err := b.Publish(ctx, cmd, 0); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	letter := func(cmd events.Command) bus.DeadLetter {
		for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
			letters, err := o.List(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range letters {
				if d.Command.ID == cmd.ID {
					return d
				}
			}
		}
		t.Fatal("no dead letter")
		return bus.DeadLetter{}
	}
	due := func() int {
		list, err := store.Due(ctx, time.Now().Add(time.Minute), 10)
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}

	t.Run("Drop fails the operation", func(t *testing.T) {
		cmd := send()
		d := letter(cmd)
		if due() != 0 {
			t.Fatal("a dead letter is swept")
		}
		if _, err := o.Drop(ctx, d.Seq, "uid:0"); err != nil {
			t.Fatal(err)
		}
		h, err := store.Load(ctx, events.NewStream(operation.Kind, cmd.Meta.Operation))
		if err != nil {
			t.Fatal(err)
		}
		last, err := operation.Codec.Decode(h[0].Events[len(h[0].Events)-1])
		if failed, ok := last.(operation.Failed); err != nil || !ok || failed.Problem.Code != problem.Dropped {
			t.Fatalf("%+v %v", last, err)
		}
		if _, err := o.Show(ctx, d.Seq); !errors.Is(err, &problem.Problem{Code: problem.NotFound}) {
			t.Fatal(err)
		}
	})
	t.Run("Retry lets the service try again", func(t *testing.T) {
		cmd := send()
		d := letter(cmd)
		mended.Store(true)
		if _, err := o.Retry(ctx, d.Seq); err != nil {
			t.Fatal(err)
		}
		if got := <-handled; got.ID != cmd.ID {
			t.Fatalf("%+v", got)
		}
		if due() != 1 {
			t.Fatal("the command is not swept, should it be lost again")
		}
	})
}
