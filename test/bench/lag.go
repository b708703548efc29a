package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/services/api/readmodel"
)

const (
	lagRate    = 500 // events a second
	lagWorkers = 8
	lagVMs     = 400
	// lagQueue is how many appends may be due and not begun, a second's worth. Past it the log cannot keep up.
	lagQueue = lagRate
)

// lag appends events at a steady rate and measures how long after its commit each is in the read model. In between it
// commits one row at a time, on a connection of its own.
func lag(ctx context.Context, b *bench, r *result) (err error) {
	l, err := b.postgres(ctx)
	if err != nil {
		return err
	}
	pool, store, err := l.open(ctx, "lag", lagWorkers+8)
	if err != nil {
		return err
	}
	if r.fsync, err = fsyncMode(ctx, pool); err != nil {
		return err
	}
	if err := seed(ctx, store, lagVMs, seedEvents); err != nil {
		return err
	}
	bus, stopBus, err := startBus(ctx, l.dir, b.log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopBus()) }()
	wake, stopWake := bus.Nudges()
	defer stopWake()
	model, err := readmodel.Open(ctx, readmodel.Options{
		Pool: pool, Reader: store, Resources: kinds(), Wake: wake, Log: b.log,
	})
	if err != nil {
		return err
	}
	if err := model.RunToEnd(ctx); err != nil {
		return err
	}
	commit, err := newCommitter(ctx, pool)
	if err != nil {
		return err
	}

	running, stop := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { bus.ForwardNudges(running, store.Nudged()) })
	parts.Go(func() { _ = model.Run(running) }) // ends with running, and then with nil
	defer parts.Wait()
	defer stop()

	m := &lagMeter{store: store, model: model, commit: commit.side()}
	if err := m.run(ctx, time.Duration(b.of(60, 5))*time.Second); err != nil {
		return err
	}
	r.series = []series{
		{"from commit to read model", ms, m.lags}, {"append", ms, m.appends}, {m.commit.name, ms, m.commits},
	}
	r.ratios = []ratio{
		atMost("lag, p99 ÷ median commit", r.series[0].p99()/r.series[2].p50(), 10, 0),
		reported("lag, p50 ÷ median commit", r.series[0].p50()/r.series[2].p50()),
		reported("the commit itself, p99 ÷ p50", r.series[2].p99()/r.series[2].p50()),
		atLeast("events a second", m.rate, 0.99*lagRate, 0),
	}
	return nil
}

// committed is an append that the read model does not show yet.
type committed struct {
	position events.Position
	at       time.Time
}

// lagMeter appends and notes what it took. The values are in milliseconds.
type lagMeter struct {
	store  eventstore.Store
	model  *readmodel.Model
	commit side
	rate   float64 // of the appends, a second

	mu            sync.Mutex
	pending       []committed
	lags, appends []float64
	commits       []float64
}

// run appends on time: an append that is late does not move those after it.
func (m *lagMeter) run(ctx context.Context, duration time.Duration) error {
	due := make(chan int, lagQueue)
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	appending, appended := context.WithCancel(ctx) // ends with the last append
	g.Go(func() error {
		defer appended()
		workers, ctx := errgroup.WithContext(ctx)
		for w := range lagWorkers {
			workers.Go(func() error { return m.work(ctx, w, due) })
		}
		workers.Go(func() error { return tick(ctx, begin, int(duration.Seconds()*lagRate), due) })
		err := workers.Wait()
		m.rate = float64(len(m.appends)) / time.Since(begin).Seconds()
		return err
	})
	g.Go(func() error { return m.commitOften(ctx, appending.Done()) })
	g.Go(func() error { return m.settleAll(ctx, appending.Done()) })
	return g.Wait()
}

// tick says when an append is due, lagRate times a second.
func tick(ctx context.Context, begin time.Time, total int, due chan<- int) error {
	defer close(due)
	for i := range total {
		select {
		case <-time.After(time.Until(begin.Add(time.Duration(i) * time.Second / lagRate))):
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case due <- i:
		default:
			return fmt.Errorf("appends are %d late: this machine does not do %d a second now", lagQueue, lagRate)
		}
	}
	return nil
}

// work appends to the machines of one worker, whose heads nobody else moves.
func (m *lagMeter) work(ctx context.Context, worker int, due <-chan int) error {
	const each = lagVMs / lagWorkers
	var heads [each]eventstore.Head
	for i := range heads {
		h, err := m.store.Load(ctx, events.NewStream(vm.Kind, vmID(worker*each+i)))
		if err != nil {
			return err
		}
		heads[i] = h[0].Head
	}
	done := 0
	for i := range due {
		n := done % each
		done++
		text := fmt.Sprintf("changed by append %d", i)
		a := eventstore.Append{Meta: appendMeta, Streams: []eventstore.StreamAppend{{
			Stream: events.NewStream(vm.Kind, vmID(worker*each+n)), Head: heads[n],
			Events: []events.Draft{vm.Codec.Encode(described(text))},
		}}}
		begin := time.Now()
		r, err := m.store.Append(ctx, a)
		if err != nil {
			return err
		}
		m.append(r.Events[0], time.Since(begin))
		heads[n] = eventstore.Head{Version: r.Events[0].Version, Hash: r.Events[0].Hash, At: r.Events[0].At}
	}
	return nil
}

func (m *lagMeter) append(e events.Event, took time.Duration) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.appends = append(m.appends, inMillis(took))
	if e.Position.Compare(m.model.Position(vm.Kind)) <= 0 { // shown before its append returned
		m.lags = append(m.lags, 0)
		return
	}
	m.pending = append(m.pending, committed{e.Position, now})
}

// settleAll notes whenever the read model has moved what it now shows, until nothing is left after the last append.
func (m *lagMeter) settleAll(ctx context.Context, appended <-chan struct{}) error {
	for {
		last := false
		select {
		case <-appended:
			last = true
		default:
		}
		moved := m.model.Moved() // before the look, so that no move is missed
		left := m.settle(m.model.Position(vm.Kind), time.Now())
		if last && left == 0 {
			return nil
		}
		end := appended
		if last {
			end = nil
		}
		select {
		case <-moved:
		case <-end:
		case <-ctx.Done():
			return fmt.Errorf("%d events are not in the read model: %w", left, ctx.Err())
		}
	}
}

// settle notes what is shown at a position, and returns how much is not.
func (m *lagMeter) settle(shown events.Position, now time.Time) (left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pending = slices.DeleteFunc(m.pending, func(c committed) bool {
		if c.position.Compare(shown) > 0 {
			return false
		}
		m.lags = append(m.lags, max(0, inMillis(now.Sub(c.at))))
		return true
	})
	return len(m.pending)
}

// commitOften commits a row every 20 ms until stopped.
func (m *lagMeter) commitOften(ctx context.Context, stopped <-chan struct{}) error {
	often := time.NewTicker(20 * time.Millisecond)
	defer often.Stop()
	for i := 0; ; i++ {
		took, err := m.commit.run(ctx, i)
		if err != nil {
			return err
		}
		m.commits = append(m.commits, took)
		select {
		case <-often.C:
		case <-stopped:
			return ctx.Err()
		}
	}
}
