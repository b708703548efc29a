package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// idle measures the memory of Horcrux without machines some time after it is ready: the proportional set size of the
// whole process tree, Postgres and the private libvirtd included.
func idle(ctx context.Context, b *bench, r *result) (err error) {
	h, err := startHorcrux(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r.fsync = "private Postgres and libvirtd"
	after := time.Duration(b.of(60, 10)) * time.Second
	samples := b.of(10, 3)
	byName := map[string][]float64{}
	var total []float64
	for i := range samples {
		wait := time.Second
		if i == 0 {
			wait = after
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		usage, err := treePSS(h.cmd.Process.Pid)
		if err != nil {
			return err
		}
		sum := 0.0
		for name, mb := range usage {
			byName[name] = append(byName[name], mb)
			sum += mb
		}
		total = append(total, sum)
	}
	const unit = "MB"
	r.series = []series{{"whole process tree", unit, total}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		r.series = append(r.series, series{"  of it " + name, unit, byName[name]})
	}
	r.ratios = []ratio{atMost("whole process tree, MB, p50", r.series[0].p50(), 150, 100)}
	r.note("%s after ready", after)
	return nil
}

// treePSS is what a process and all its descendants take, in MB (10⁶ bytes), by the name of the program.
func treePSS(root int) (map[string]float64, error) {
	children, err := childrenOf()
	if err != nil {
		return nil, err
	}
	usage := map[string]float64{}
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		pid := queue[0]
		queue = append(queue, children[pid]...)
		name, mb, err := pss(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) { // it has ended
			continue
		}
		if err != nil {
			return nil, err
		}
		usage[name] += mb
	}
	return usage, nil
}

// childrenOf lists the children of every process.
func childrenOf() (map[int][]int, error) {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	children := map[int][]int{}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			return nil, err
		}
		// The name, in parentheses, may hold anything; after it come state and parent.
		fields := bytes.Fields(raw[bytes.LastIndexByte(raw, ')')+1:])
		if len(fields) < 2 {
			continue
		}
		parent, err := strconv.Atoi(string(fields[1]))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

func pss(pid int) (name string, mb float64, err error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return "", 0, err
	}
	rollup, err := os.ReadFile(filepath.Join(dir, "smaps_rollup"))
	if err != nil {
		return "", 0, err
	}
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 64)
			return strings.TrimSpace(string(comm)), kib * 1024 / 1e6, err
		}
	}
	return "", 0, fmt.Errorf("%s/smaps_rollup has no Pss", dir)
}
