package postgres_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver/pgtest"
)

var benchMeta = events.Meta{Actor: "token:admin", Auth: "token", Correlation: uuid.New(), Operation: uuid.New(), Node: uuid.New()}

// BenchmarkAppend measures durable appends: each event a first one of a stream of its own, decided by a command.
func BenchmarkAppend(b *testing.B) {
	server := pgtest.Server(b)
	s := open(b, server.DSN()+"&pool_max_conns=32", postgres.Options{})
	for _, connections := range []int{1, 32} {
		b.Run(fmt.Sprintf("connections=%d", connections), func(b *testing.B) {
			turns := make(chan struct{}, connections)
			var wg sync.WaitGroup
			for range connections {
				wg.Go(func() {
					for range turns {
						a := drafted(newStream(), eventstore.Head{}, "vm.created")
						a.Command, a.Meta = uuid.New(), benchMeta
						if _, err := s.Append(b.Context(), a); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for b.Loop() {
				turns <- struct{}{}
			}
			close(turns)
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			types := make([]string, batch)
			for i := range types {
				types[i] = "vm.started"
			}
			for b.Loop() {
				a := drafted(newStream(), eventstore.Head{}, types...)
				a.Command, a.Meta = uuid.New(), benchMeta
				if _, err := s.Append(b.Context(), a); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkRead measures a projection's page.
func BenchmarkRead(b *testing.B) {
	s := open(b, pgtest.Database(b), postgres.Options{})
	types := make([]string, 100)
	for i := range types {
		types[i] = "vm.started"
	}
	for range 100 {
		add(b, s, newStream(), types...)
	}
	for b.Loop() {
		p, err := s.Read(b.Context(), events.Position{}, eventstore.ReadOptions{})
		if err != nil || len(p.Events) != 1000 {
			b.Fatalf("%d events, %v", len(p.Events), err)
		}
	}
	b.ReportMetric(float64(b.N*1000)/b.Elapsed().Seconds(), "events/s")
}
