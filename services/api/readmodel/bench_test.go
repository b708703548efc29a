package readmodel_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/services/api/readmodel"
)

// The benchmarks project virtual machines from an event store in the same Postgres.

type machine struct {
	id      uuid.UUID
	history eventstore.History
}

// fleet is a store with virtual machines, and a model of them.
type fleet struct {
	pool  *pgxpool.Pool
	store *postgres.Store
	model *readmodel.Model
	vms   []*machine
}

func newFleet(b *testing.B, machines, eventsEach int) *fleet {
	b.Helper()
	f := &fleet{pool: database(b)}
	var err error
	if f.store, err = postgres.New(b.Context(), f.pool, postgres.Options{Logger: slog.New(slog.DiscardHandler)}); err != nil {
		b.Fatal(err)
	}
	for i := range machines {
		m := &machine{id: events.NewID()}
		m.history.Stream = events.NewStream(vm.Kind, m.id)
		spec := vm.Spec{
			Name: fmt.Sprintf("vm-%05d", i), Backend: "qemu", Tags: []string{"web", fmt.Sprintf("rack-%d", i%40)}, CPUs: 1 + i%8, MemoryMB: 1024,
			CPUModel: "host-model", Machine: "q35", Firmware: "bios", Disks: []vm.Disk{{Pool: "local", SizeGB: 10, Format: "qcow2", Bus: "virtio"}},
			Networks: []vm.NIC{{Network: "default", Model: "virtio"}}, OnDrift: "record",
		}
		drafts := []any{vm.CreateRequested{Spec: spec, Node: m.id}, vm.Created{NativeID: "1", Accelerator: "tcg"}}
		for n := 2; n < eventsEach; n++ {
			drafts = append(drafts, []any{vm.Started{}, vm.Stopped{Cause: "destroyed"}}[n%2])
		}
		f.append(b, m, drafts...)
		f.vms = append(f.vms, m)
	}
	f.model, err = readmodel.Open(b.Context(), readmodel.Options{
		Pool: f.pool, Reader: f.store, Resources: []*events.Resource{&vm.Resource}, Wake: f.store.Nudged(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	return f
}

func (f *fleet) append(b *testing.B, m *machine, drafts ...any) events.Position {
	b.Helper()
	sa := eventstore.StreamAppend{Stream: m.history.Stream, Head: m.history.Head}
	for _, d := range drafts {
		sa.Events = append(sa.Events, vm.Codec.Encode(d))
	}
	r, err := f.store.Append(b.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{sa}, Meta: events.Meta{Actor: "bench", Operation: m.id}})
	if err != nil {
		b.Fatal(err)
	}
	last := r.Events[len(r.Events)-1]
	m.history.Head = eventstore.Head{Version: last.Version, Hash: last.Hash, At: last.At}
	return last.Position
}

func (f *fleet) toEnd(b *testing.B) {
	b.Helper()
	if err := f.model.RunToEnd(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkRebuild compares a rebuild with COPY TO STDOUT of the same events.
func BenchmarkRebuild(b *testing.B) {
	for _, size := range [][2]int{{2000, 100}, {10000, 100}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			f := newFleet(b, size[0], size[1])
			conn, err := f.pool.Acquire(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Release()
			var copied, rebuilt time.Duration
			for b.Loop() {
				begun := time.Now()
				if _, err := conn.Conn().PgConn().CopyTo(b.Context(), io.Discard, `COPY eventstore.events TO STDOUT`); err != nil {
					b.Fatal(err)
				}
				copied += time.Since(begun)
				begun = time.Now()
				if err := f.model.Rebuild(b.Context(), vm.Kind, nil); err != nil {
					b.Fatal(err)
				}
				rebuilt += time.Since(begun)
			}
			b.ReportMetric(rebuilt.Seconds()/copied.Seconds(), "×copy")
			b.ReportMetric(copied.Seconds()/float64(b.N), "copy-s")
		})
	}
}

// BenchmarkLag is how long after its commit an event is in the read model, at 500 events a second.
func BenchmarkLag(b *testing.B) {
	f := newFleet(b, 100, 2)
	f.toEnd(b)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- f.model.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	var commits, lags []time.Duration
	tick := time.NewTicker(time.Second / 500)
	defer tick.Stop()
	type seen struct {
		pos events.Position
		at  time.Time
	}
	recorded := make(chan seen, 1000)
	watched := make(chan error, 1)
	go func() {
		defer close(watched)
		for s := range recorded {
			if err := f.model.Wait(ctx, vm.Kind, s.pos); err != nil {
				watched <- err
				return
			}
			lags = append(lags, time.Since(s.at))
		}
	}()
	n := 0
	for b.Loop() {
		for range 1000 {
			<-tick.C
			begun := time.Now()
			pos := f.append(b, f.vms[n%len(f.vms)], vm.Started{})
			now := time.Now()
			commits = append(commits, now.Sub(begun))
			recorded <- seen{pos, now}
			n++
		}
	}
	close(recorded)
	if err := <-watched; err != nil {
		b.Fatal(err)
	}
	slices.Sort(commits)
	slices.Sort(lags)
	median, p99 := commits[len(commits)/2], lags[len(lags)*99/100]
	b.ReportMetric(p99.Seconds()/median.Seconds(), "p99-lag/commit")
	b.ReportMetric(float64(median.Microseconds()), "commit-p50-µs")
	b.ReportMetric(float64(lags[len(lags)/2].Microseconds()), "lag-p50-µs")
	b.ReportMetric(float64(p99.Microseconds()), "lag-p99-µs")
	b.ReportMetric(float64(commits[len(commits)*99/100].Microseconds()), "commit-p99-µs")
}

// BenchmarkList compares a page of 100 of 10,000 with the bare SQL through the same pool.
func BenchmarkList(b *testing.B) {
	for _, each := range []int{10, 100} {
		b.Run(fmt.Sprintf("%d-events-each", each), func(b *testing.B) {
			f := newFleet(b, 10_000, each)
			f.toEnd(b)
			if _, err := f.pool.Exec(b.Context(), `ANALYZE api.views`); err != nil {
				b.Fatal(err)
			}
			var bare, listed []time.Duration
			for b.Loop() {
				begun := time.Now()
				rows, err := f.pool.Query(b.Context(), `SELECT doc FROM api.views WHERE gen = (SELECT gen FROM api.projections WHERE kind = 'vm')
					AND NOT deleted ORDER BY name LIMIT 100`)
				if err != nil {
					b.Fatal(err)
				}
				var doc string
				for rows.Next() {
					if err := rows.Scan(&doc); err != nil {
						b.Fatal(err)
					}
				}
				rows.Close()
				bare = append(bare, time.Since(begun))
				begun = time.Now()
				page, err := f.model.List(b.Context(), vm.Kind, readmodel.Query{})
				if err != nil || len(page.Docs()) != 100 {
					b.Fatal(err)
				}
				_ = page.JSON()
				page.Free()
				listed = append(listed, time.Since(begun))
			}
			slices.Sort(bare)
			slices.Sort(listed)
			p := len(bare) * 95 / 100
			b.ReportMetric(listed[p].Seconds()/bare[p].Seconds(), "p95/bare")
			b.ReportMetric(float64(bare[p].Microseconds()), "bare-p95-µs")
		})
	}
}
