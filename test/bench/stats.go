package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"horcrux/pkg/openapi"
)

// stale is for how long after a look of the node an answer needs no other, besides the time that the look took.
const stale = 1100 * time.Millisecond

// stats compares the use of all running machines over REST with virsh domstats of the same groups. The machines are
// paused and have no disk, so what is measured is the asking.
func stats(ctx context.Context, b *bench, r *result) (err error) {
	h, err := startHorcrux(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r.fsync = "private Postgres and libvirtd"
	v := h.virsh()
	defer func() { err = errors.Join(err, v.destroyAll()) }()
	n := b.of(500, 10)
	defer func() { err = errors.Join(err, h.depopulate(ctx, n)) }()
	if err := h.populate(ctx, n, true); err != nil {
		return err
	}
	look, err := h.calm(ctx, n)
	if err != nil {
		return err
	}
	r.series, err = interleave(ctx, 1, b.of(8, 5),
		side{"GET /api/stats", ms, func(ctx context.Context, _ int) (float64, error) {
			look, err = h.statsOnce(ctx, n, stale+2*look)
			return look.Seconds() * 1000, err
		}},
		side{"virsh domstats", ms, func(ctx context.Context, _ int) (float64, error) {
			if _, err := h.get(ctx, "/api/stats"); err != nil { // so that the node has no need to look meanwhile
				return 0, err
			}
			return v.statsOnce(ctx, n)
		}},
	)
	if err != nil {
		return err
	}
	rest, bare := r.series[0], r.series[1]
	r.ratios = []ratio{
		atMost("REST ÷ virsh, p50", rest.p50()/bare.p50(), 1.3, 0),
		reported("REST ÷ virsh, p95", rest.p95()/bare.p95()),
	}
	r.note("%d paused machines; each answer needs a call to libvirt", n)
	return nil
}

// statsOnce waits for so long that the next answer needs a look, and measures the time until there is an answer of a look that
// began after the question. What was seen before may be told meanwhile.
func (h *horcrux) statsOnce(ctx context.Context, n int, pause time.Duration) (time.Duration, error) {
	if err := sleep(ctx, pause); err != nil {
		return 0, err
	}
	begin := time.Now()
	for {
		out, err := h.get(ctx, "/api/stats")
		if err != nil {
			return 0, err
		}
		took := time.Since(begin)
		var all struct{ VMs []openapi.VMStats }
		if err := json.Unmarshal(out, &all); err != nil {
			return 0, err
		}
		if len(all.VMs) != n || all.VMs[0].CPU.UsedS == nil || all.VMs[n-1].Memory.BalloonMB == nil {
			return 0, fmt.Errorf("stats of %d machines, not all of %d", len(all.VMs), n)
		}
		if !all.VMs[0].At.Before(begin.Truncate(time.Millisecond)) {
			return took, nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// calm waits until the node has answered for all machines, which it may not while many of them have just been started.
func (h *horcrux) calm(ctx context.Context, n int) (look time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	for {
		if look, err = h.statsOnce(ctx, n, stale); err == nil {
			return look, nil
		}
		if sleep(ctx, time.Second) != nil {
			return 0, fmt.Errorf("the node does not come to rest: %w", err)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v virsh) statsOnce(ctx context.Context, n int) (float64, error) {
	var out string
	took, err := millis(func() (err error) {
		out, err = v.run(ctx, "domstats", "--nowait", "--state", "--cpu-total", "--balloon", "--vcpu", "--interface", "--block")
		return err
	})
	if got := strings.Count(out, "Domain: "); err == nil && got != n {
		err = fmt.Errorf("virsh tells of %d domains, not of %d", got, n)
	}
	return took, err
}
