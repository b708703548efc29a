package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"horcrux/pkg/eventstore/postgres"
)

// readyTime bounds the start of a process.
const readyTime = 2 * time.Minute

// control compares creating a machine over REST until it is there, on a hypervisor that takes no time, with one commit
// in the same Postgres. One client; the server is a process of its own.
func control(ctx context.Context, b *bench, r *result) (err error) {
	l, err := b.postgres(ctx)
	if err != nil {
		return err
	}
	const database = "control"
	dsn, err := l.dsn(ctx, database)
	if err != nil {
		return err
	}
	pool, err := postgres.Connect(ctx, dsn, 1)
	if err != nil {
		return err
	}
	defer pool.Close()
	if r.fsync, err = fsyncMode(ctx, pool); err != nil {
		return err
	}
	commit, err := newCommitter(ctx, pool)
	if err != nil {
		return err
	}
	dir, err := tempDir(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	args := []string{"-database", dsn}
	if b.profiles != "" {
		args = append(args, "-profile", filepath.Join(b.profiles, "control-node.pprof"))
	}
	p, err := launchFake(dir, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	starting, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := p.ready(starting); err != nil {
		return err
	}
	r.series, err = interleave(ctx, b.of(200, 20), b.of(3000, 150),
		side{"POST /api/vms to succeeded", ms, func(ctx context.Context, turn int) (float64, error) {
			body := map[string]any{"name": fmt.Sprintf("control-%d", turn), "memory_mb": 64, "networks": []any{}}
			took, err := millis(func() error {
				_, err := p.must(ctx, "POST", "/api/vms?wait=30", body)
				return err
			})
			if err == nil { // it waits for the projection, which must not run into the commit's turn
				_, err = p.get(ctx, "/api/vms?limit=1")
			}
			return took, err
		}},
		commit.side(),
	)
	if err != nil {
		return err
	}
	rest, one := r.series[0], r.series[1]
	r.ratios = []ratio{
		atMost("REST ÷ commit, p50", rest.p50()/one.p50(), 12, 8),
		reported("REST ÷ commit, p95", rest.p95()/one.p95()),
		atMost("REST, p99 ÷ p50", rest.p99()/rest.p50(), 5, 0),
		reported("the commit itself, p99 ÷ p50", one.p99()/one.p50()),
	}
	return nil
}
