package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// resync measures a look of the node at all its machines, which are off and have not changed, and what the process
// costs while it does nothing else: such looks, and those at what machines use.
func resync(ctx context.Context, b *bench, r *result) (err error) {
	h, err := startHorcrux(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r.fsync = "private Postgres and libvirtd"
	n := b.of(2000, 50)
	defer func() { err = errors.Join(err, h.depopulate(ctx, n)) }()
	if err := h.populate(ctx, n, false); err != nil {
		return err
	}
	looks := series{name: "look at all machines", unit: ms}
	if _, err := h.nextResync(ctx); err != nil { // the first knows some of them not yet
		return err
	}
	for range b.of(3, 1) {
		took, err := h.nextResync(ctx)
		if err != nil {
			return err
		}
		looks.values = append(looks.values, took)
	}
	interval := time.Duration(b.of(60, 15)) * time.Second
	daemon, err := os.ReadFile(filepath.Join(h.data, "libvirt", "libvirtd.pid"))
	if err != nil {
		return err
	}
	libvirtd, err := strconv.Atoi(strings.TrimSpace(string(daemon)))
	if err != nil {
		return err
	}
	busy := func(pid int) (func() (float64, error), error) {
		before, err := cpuTime(pid)
		begin := time.Now()
		return func() (float64, error) {
			after, err := cpuTime(pid)
			return (after - before).Seconds() / time.Since(begin).Seconds() * 100, err
		}, err
	}
	ours, err := busy(h.cmd.Process.Pid)
	if err != nil {
		return err
	}
	theirs, err := busy(libvirtd)
	if err != nil {
		return err
	}
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return ctx.Err()
	}
	own, err := ours()
	if err != nil {
		return err
	}
	other, err := theirs()
	if err != nil {
		return err
	}
	const percent = "% of a core"
	r.series = []series{looks, {"Horcrux's process", percent, []float64{own}}, {"libvirtd", percent, []float64{other}}}
	r.ratios = []ratio{
		atMost("a look at all machines, seconds, p50", looks.p50()/1000, 2, 0),
		atMost("CPU of Horcrux's process, % of a core", own, 5, 0),
		reported("CPU of libvirtd, % of a core", other),
	}
	r.note("%d machines that are off; CPU over %s", n, interval)
	return nil
}

// nextResync waits for the next look at all machines and returns how long it took.
func (h *horcrux) nextResync(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	count, sum, err := h.resyncs(ctx)
	if err != nil {
		return 0, err
	}
	often := time.NewTicker(time.Second)
	defer often.Stop()
	for {
		select {
		case <-often.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("no look at all machines: %w", ctx.Err())
		}
		n, total, err := h.resyncs(ctx)
		if err != nil {
			return 0, err
		}
		if n > count {
			return (total - sum) / (n - count) * 1000, nil
		}
	}
}

// resyncs are how many looks there were, and how many seconds they took.
func (h *horcrux) resyncs(ctx context.Context) (count, sum float64, err error) {
	text, err := h.get(ctx, "/metrics")
	if err != nil {
		return 0, 0, err
	}
	for line := range bytes.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		switch name {
		case "horcrux_resync_seconds_count":
			count, err = strconv.ParseFloat(value, 64)
		case "horcrux_resync_seconds_sum":
			sum, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return count, sum, nil
}

// cpuTime is what a process has used so far, in user and kernel mode.
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may hold anything; utime and stime are the 12th and 13th field after it.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, raw)
	}
	user, userErr := strconv.ParseInt(fields[11], 10, 64)
	kernel, kernelErr := strconv.ParseInt(fields[12], 10, 64)
	const ticks = 100 // a second
	return time.Duration(user+kernel) * time.Second / ticks, errors.Join(userErr, kernelErr)
}
