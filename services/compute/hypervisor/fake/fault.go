package fake

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/watch"
)

// When a fault strikes.
type When int

// The moments.
const (
	Before When = iota // nothing has happened
	After              // it has happened, and nobody is told
)

// Fault is a failure of one call.
type Fault struct {
	Method string    // "Define", "Start", …; "" strikes any
	Domain uuid.UUID // uuid.Nil strikes any
	When   When
	Err    error // one of the driver's errors, hypervisor.ErrUnknown for instance
	Times  int   // how often it strikes; 0 is once
}

// Inject arms a fault. Several are tried in the order of their injection, one for each call and moment.
func (h *Hypervisor) Inject(f Fault) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.Times = max(f.Times, 1)
	h.faults = append(h.faults, f)
}

// strike needs h.mu.
func (h *Hypervisor) strike(method string, id uuid.UUID, when When) error {
	for i := range h.faults {
		f := &h.faults[i]
		if f.When != when || f.Method != "" && f.Method != method || f.Domain != uuid.Nil && f.Domain != id {
			continue
		}
		err := f.Err
		if f.Times--; f.Times == 0 {
			h.faults = append(h.faults[:i], h.faults[i+1:]...)
		}
		return fmt.Errorf("%s: %w", method, err)
	}
	return nil
}

// SetLatency makes every call take this long, half before its effect and half after it.
func (h *Hypervisor) SetLatency(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.latency = d
}

// SetAvailable brings the hypervisor down, which breaks every watch, or up again. The domains stay as they are.
func (h *Hypervisor) SetAvailable(up bool) {
	h.mu.Lock()
	h.down = !up
	var broken []*watch.Hub
	if !up {
		for d := range h.drivers {
			broken = append(broken, d.renewHub())
		}
	}
	h.mu.Unlock()
	for _, hub := range broken {
		hub.Close()
	}
}

// SetDeaf makes the hypervisor take calls and answer none, until it is set back.
func (h *Hypervisor) SetDeaf(deaf bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = deaf
}

// SetObedient says whether guests power off when they are asked to, which they do at first.
func (h *Hypervisor) SetObedient(obedient bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disobey = !obedient
}

// do runs one call: it waits, fails or hangs as the hypervisor was told to. A mutation that is cut off after it may
// have begun is unknown; a look is unavailable.
func (d *Driver) do(ctx context.Context, method string, id uuid.UUID, mutation bool, effect func() error) error {
	if err := d.usable(ctx); err != nil {
		return err
	}
	h := d.h
	h.mu.Lock()
	half, deaf := h.latency/2, h.deaf
	h.mu.Unlock()
	if deaf {
		half = time.Hour
	}
	if err := d.wait(ctx, half, mutation); err != nil {
		return err
	}

	err := func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.down {
			return refuse(hypervisor.ErrUnavailable, "the fake hypervisor is down")
		}
		if err := h.strike(method, id, Before); err != nil {
			return err
		}
		if err := effect(); err != nil {
			return err
		}
		return h.strike(method, id, After)
	}()
	if err != nil {
		return err
	}
	return d.wait(ctx, half, mutation)
}

func (d *Driver) usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if d.life.Err() != nil {
		return refuse(hypervisor.ErrUnavailable, "the driver is closed")
	}
	return nil
}

func (d *Driver) wait(ctx context.Context, latency time.Duration, mutation bool) error {
	if latency == 0 {
		return nil
	}
	timer := time.NewTimer(latency)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-d.life.Done():
		return refuse(hypervisor.ErrUnavailable, "the driver was closed")
	case <-ctx.Done():
		switch {
		case mutation:
			return fmt.Errorf("%w: %w", hypervisor.ErrUnknown, ctx.Err())
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return fmt.Errorf("%w: %w", hypervisor.ErrUnavailable, ctx.Err())
		}
		return ctx.Err()
	}
}

// SetSilent makes changes happen without anybody being told.
func (h *Hypervisor) SetSilent(silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = silent
}
