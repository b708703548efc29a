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
	r.series, err = interleave(ctx, 1, b.of(8, 5),
		side{"GET /api/stats", ms, func(ctx context.Context, _ int) (float64, error) { return h.statsOnce(ctx, n) }},
		side{"virsh domstats", ms, func(ctx context.Context, _ int) (float64, error) { return v.statsOnce(ctx, n) }},
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

// statsOnce measures an answer for which the node has to look. One that came of a look that was under way does not count,
// nor does one that came too late while the machines were still being paused.
func (h *horcrux) statsOnce(ctx context.Context, n int) (float64, error) {
	for pause := stale; ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		var out []byte
		begin := time.Now()
		took, err := millis(func() (err error) { out, err = h.get(ctx, "/api/stats"); return err })
		if err != nil {
			return 0, err
		}
		var all struct {
			VMs     []openapi.VMStats
			Missing []openapi.MissingNode
		}
		if err := json.Unmarshal(out, &all); err != nil {
			return 0, err
		}
		pause = stale + 2*time.Since(begin)
		if len(all.Missing) > 0 {
			continue
		}
		if len(all.VMs) == n && all.VMs[0].At.Before(begin.Truncate(time.Millisecond)) {
			continue
		}
		if len(all.VMs) != n || all.VMs[0].CPU.UsedS == nil || all.VMs[n-1].Memory.BalloonMB == nil {
			return 0, fmt.Errorf("stats of %d machines, not all of %d: %.300s", len(all.VMs), n, out)
		}
		return took, nil
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
