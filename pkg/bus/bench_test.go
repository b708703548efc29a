package bus_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
)

// BenchmarkAsk is the way of a command to its decision and back, without what the service does.
func BenchmarkAsk(b *testing.B) {
	accept := func(_ context.Context, cmd events.Command) (bus.Decision, error) {
		return bus.Decision{Command: cmd.ID}, nil
	}
	setUp := func(b *testing.B) *bus.Bus {
		s := bustest.Server(b)
		gateway, service := bustest.On(b, s, bus.Options{}), bustest.On(b, s, bus.Options{})
		consume(b, service, accept, anyNode, events.Address{Domain: "compute", Node: uuid.NewString()})
		return gateway
	}
	ask := func(b *testing.B, gateway *bus.Bus) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if _, err := gateway.Ask(ctx, command(uuid.New())); err != nil {
			b.Error(err)
		}
	}
	b.Run("OneClient", func(b *testing.B) {
		gateway := setUp(b)
		for b.Loop() {
			ask(b, gateway)
		}
	})
	b.Run("PublishAlone", func(b *testing.B) {
		bb := bustest.New(b, bus.Options{})
		for b.Loop() {
			if err := bb.Publish(context.Background(), command(uuid.New()), 0); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ManyClients", func(b *testing.B) {
		gateway := setUp(b)
		b.SetParallelism(16)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				ask(b, gateway)
			}
		})
	})
}

// BenchmarkPublishEvents is the relay's way of a full page.
func BenchmarkPublishEvents(b *testing.B) {
	bb := bustest.New(b, bus.Options{})
	stream := events.NewStream("vm", uuid.New())
	domain := func(string) string { return "compute" }
	tail, err := bb.Tail(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	seq := int64(0)
	for b.Loop() {
		page := make([]events.Event, bus.MaxEvents)
		for i := range page {
			seq++
			page[i] = events.Event{
				ID: events.NewID(), Stream: stream, Version: seq, Type: "vm.started", Schema: 1,
				Data: json.RawMessage(`{"pid":4711}`), Position: events.Position{Tx: uint64(seq), Seq: seq},
			}
		}
		if tail, err = bb.PublishEvents(context.Background(), tail, page, domain); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(seq)/b.Elapsed().Seconds(), "events/s")
}
