package bus_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
)

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
