package main

import (
	"context"
	"fmt"
	"io"

	"horcrux/pkg/events/vm"
)

// rebuild compares the rebuild of the read model of all machines with reading their events out of Postgres at all:
// COPY of the log to nowhere.
func rebuild(ctx context.Context, b *bench, r *result) error {
	f, err := b.fleet(ctx, b.of(10_000, 500), b.of(100, 50))
	if err != nil {
		return err
	}
	if r.fsync, err = fsyncMode(ctx, f.pool); err != nil {
		return err
	}
	want := int64(f.vms * f.events)
	copyOut := func() error {
		conn, err := f.pool.Acquire(ctx)
		if err != nil {
			return err
		}
		defer conn.Release()
		tag, err := conn.Conn().PgConn().CopyTo(ctx, io.Discard, "COPY eventstore.events TO STDOUT")
		if err == nil && tag.RowsAffected() != want {
			err = fmt.Errorf("the log has %d events instead of %d", tag.RowsAffected(), want)
		}
		return err
	}
	r.series, err = interleave(ctx, 0, b.of(5, 3),
		side{"rebuild", ms, func(ctx context.Context, _ int) (float64, error) {
			return millis(func() error { return f.model.Rebuild(ctx, vm.Kind, nil) })
		}},
		side{"COPY TO STDOUT", ms, func(context.Context, int) (float64, error) { return millis(copyOut) }},
	)
	if err != nil {
		return err
	}
	r.ratios = []ratio{
		atMost("rebuild ÷ COPY, p50", r.series[0].p50()/r.series[1].p50(), 6, 3),
		reported("rebuild ÷ COPY, p95", r.series[0].p95()/r.series[1].p95()),
	}
	r.note("%d machines with %d events each", f.vms, f.events)
	return f.whole(ctx)
}
