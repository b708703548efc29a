package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver"
	"horcrux/pkg/problem"
)

// ready measures how long a whole Horcrux takes from its start to /readyz: Postgres, NATS, services and REST, with a
// log of many machines that was open before, on a fake hypervisor on which they all run.
func ready(ctx context.Context, b *bench, r *result) (err error) {
	vms := b.of(10_000, 500)
	dir, err := tempDir(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	end, err := seedDir(ctx, b, r, dir, vms)
	if err != nil {
		return err
	}
	measured := series{name: "start to ready", unit: ms}
	for turn := range 1 + b.of(9, 3) { // the first fills read model and streams
		took, err := startOnce(ctx, dir, vms, end)
		if err != nil {
			return fmt.Errorf("start %d: %w", turn, err)
		}
		if turn > 0 {
			measured.values = append(measured.values, took)
		}
	}
	r.series = []series{measured}
	r.ratios = []ratio{
		atMost("start to ready, seconds, p50", measured.p50()/1000, 3, 0),
		reported("start to ready, seconds, p95", measured.p95()/1000),
	}
	r.note("%d machines of 10 events; the start of Postgres counts", vms)
	return nil
}

// seedDir fills the private Postgres of a data dir and returns the end of its log.
func seedDir(ctx context.Context, b *bench, r *result, dir string, vms int) (end events.Position, err error) {
	pg, err := pgserver.Start(ctx, pgserver.Options{
		Dir: filepath.Join(dir, "postgres"), SocketDir: filepath.Join(dir, "run"), Logger: b.log,
	})
	if err != nil {
		return end, err
	}
	defer func() {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
		defer cancel()
		err = errors.Join(err, pg.Stop(stopping))
	}()
	pool, err := postgres.Connect(ctx, pg.DSN(pgserver.Database), seeders)
	if err != nil {
		return end, err
	}
	defer pool.Close()
	store, err := postgres.New(ctx, pool, postgres.Options{Logger: b.log})
	if err != nil {
		return end, err
	}
	if r.fsync, err = fsyncMode(ctx, pool); err != nil {
		return end, err
	}
	if err := seed(ctx, store, vms, 10); err != nil {
		return end, err
	}
	if _, err := pool.Exec(ctx, "VACUUM ANALYZE"); err != nil {
		return end, err
	}
	return store.End(ctx)
}

// startOnce starts a node, and stops it again when it is ready and its read model has the whole log.
func startOnce(ctx context.Context, dir string, vms int, end events.Position) (took float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	begin := time.Now()
	p, err := launchFake(dir, "-domains", fmt.Sprint(vms))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if err := p.ready(ctx); err != nil {
		return 0, err
	}
	took = inMillis(time.Since(begin))
	return took, p.await(ctx, end)
}

// await returns when the read model of machines has got to a position. One call waits for it for some seconds.
func (p *process) await(ctx context.Context, position events.Position) error {
	for {
		_, err := p.get(ctx, "/api/vms?limit=1&min_position="+position.String())
		var answer *statusError
		if !errors.As(err, &answer) || answer.status != problem.DeadlineExceeded.Status() {
			return err
		}
	}
}
