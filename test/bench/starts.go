package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
)

// starts compares many starts at once over REST, until all run, with as many of virsh at the same libvirtd: domains of
// its own of the same XML, without our mark, which Horcrux leaves alone. They are started by xargs, all at once or a few
// at a time: the yardstick is what is faster here.
func starts(ctx context.Context, b *bench, r *result) (err error) {
	h, err := startHorcrux(ctx, b)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	r.fsync = "private Postgres and libvirtd"
	v := h.virsh()
	defer func() { err = errors.Join(err, v.destroyAll()) }()
	n := b.of(50, 6)
	defer func() { err = errors.Join(err, h.depopulate(ctx, n)) }()
	if err := h.populate(ctx, n, false); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.undefineTwins(ctx, n)) }()
	if err := v.defineTwins(ctx, n); err != nil {
		return err
	}
	r.series, err = interleave(ctx, 1, b.of(3, 2),
		side{"REST starts", ms, func(ctx context.Context, _ int) (float64, error) { return h.startAll(ctx, n) }},
		side{"xargs -P " + strconv.Itoa(n) + " virsh start", ms, func(ctx context.Context, _ int) (float64, error) { return v.startAll(ctx, n, n) }},
		side{"xargs -P " + strconv.Itoa(atOnce) + " virsh start", ms, func(ctx context.Context, _ int) (float64, error) { return v.startAll(ctx, n, atOnce) }},
	)
	if err != nil {
		return err
	}
	rest, bare := r.series[0], min(r.series[1].p50(), r.series[2].p50())
	r.ratios = []ratio{atMost("REST ÷ the faster virsh, p50", rest.p50()/bare, 1.2, 1.05)}
	r.note("%d machines without disk and boot device", n)
	return nil
}

// startAll starts every machine at once and stops them again.
func (h *horcrux) startAll(ctx context.Context, n int) (float64, error) {
	took, err := millis(func() error {
		return each(ctx, n, n, func(ctx context.Context, i int) error {
			_, err := h.must(ctx, "POST", "/api/vms/"+bareName(i)+"/start?wait=110", nil)
			return err
		})
	})
	if err != nil {
		return 0, err
	}
	return took, each(ctx, n, atOnce, func(ctx context.Context, i int) error {
		_, err := h.must(ctx, "POST", "/api/vms/"+bareName(i)+"/stop?wait=110", nil)
		return err
	})
}

func twinName(i int) string { return fmt.Sprintf("twin-%04d", i) }

var metadata = regexp.MustCompile(`(?s)<metadata>.*</metadata>`)

// defineTwins defines a domain like each machine.
func (v virsh) defineTwins(ctx context.Context, n int) error {
	xml, err := v.run(ctx, "dumpxml", "--inactive", bareName(0))
	if err != nil {
		return err
	}
	id, err := v.run(ctx, "domuuid", bareName(0))
	if err != nil {
		return err
	}
	xml = metadata.ReplaceAllString(xml, "")
	return each(ctx, n, atOnce, func(ctx context.Context, i int) (err error) {
		f, err := os.CreateTemp("", "hxbench-*.xml")
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
		_, err = f.WriteString(strings.NewReplacer(strings.TrimSpace(id), uuid.NewString(), ">"+bareName(0)+"<", ">"+twinName(i)+"<").Replace(xml))
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		_, err = v.run(ctx, "define", f.Name())
		return err
	})
}

// undefineTwins forgets those that were defined.
func (v virsh) undefineTwins(ctx context.Context, n int) error {
	ctx = context.WithoutCancel(ctx)
	names, err := v.run(ctx, "list", "--all", "--name")
	if err != nil {
		return err
	}
	there := strings.Fields(names)
	return each(ctx, len(there), atOnce, func(ctx context.Context, i int) error {
		if !strings.HasPrefix(there[i], "twin-") {
			return nil
		}
		_, err := v.run(ctx, "undefine", there[i])
		return err
	})
}

// startAll starts every twin, some at a time, and ends them again.
func (v virsh) startAll(ctx context.Context, n, parallel int) (float64, error) {
	var names strings.Builder
	for i := range n {
		fmt.Fprintln(&names, twinName(i))
	}
	took, err := millis(func() error {
		ctx, cancel := context.WithTimeout(ctx, machineTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, "xargs", "-P", strconv.Itoa(parallel), "-n", "1", "virsh", "--quiet", "--connect", v.uri, "start")
		cmd.Stdin = strings.NewReader(names.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("xargs virsh start: %w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	return took, each(ctx, n, atOnce, func(ctx context.Context, i int) error {
		_, err := v.run(ctx, "destroy", twinName(i))
		return err
	})
}
