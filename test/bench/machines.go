package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// atOnce is how many machines are made or taken down at a time while nothing is measured.
const atOnce = 8

// machineTime bounds what is done to one machine.
const machineTime = 2 * time.Minute

// each calls f for the numbers below n, some at a time, and stops with the first that fails.
func each(ctx context.Context, n, limit int, f func(ctx context.Context, i int) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(limit)
	for i := range n {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, machineTime)
			defer cancel()
			return f(ctx, i)
		})
	}
	return g.Wait()
}

// bareName is the name of the nth machine of a measurement.
func bareName(i int) string { return fmt.Sprintf("bare-%04d", i) }

// populate makes machines without disk and boot device, off, or started and then paused.
func (h *horcrux) populate(ctx context.Context, n int, paused bool) error {
	return each(ctx, n, atOnce, func(ctx context.Context, i int) error {
		spec := bareMachine(bareName(i))
		spec["start"] = paused
		_, err := h.must(ctx, "POST", "/api/vms?wait=110", spec)
		if err == nil && paused {
			_, err = h.must(ctx, "POST", "/api/vms/"+bareName(i)+"/pause?wait=110", nil)
		}
		return err
	})
}

// depopulate takes away what populate has made, all of it or as much as there is.
func (h *horcrux) depopulate(ctx context.Context, n int) error {
	errs := make([]error, n)
	err := each(context.WithoutCancel(ctx), n, atOnce, func(ctx context.Context, i int) error {
		_, errs[i] = h.must(ctx, "DELETE", "/api/vms/"+bareName(i)+"?force=true&wait=110", nil)
		if answer := (*statusError)(nil); errors.As(errs[i], &answer) && answer.status == 404 {
			errs[i] = nil
		}
		return nil // the others all the same
	})
	return errors.Join(append(errs, err)...)
}
