package compute

import (
	"context"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// watchAgain is the pause before a broken watch is taken up again, and how long Ready may be behind.
const watchAgain = time.Second

// watch tells the decider what it sees of the hypervisor, for as long as ctx lasts.
func (s *Service) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.watchOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if s.down.Load() == nil {
				s.Log.Warn("the hypervisor does not answer", "err", err)
			}
			down := error(unavailable())
			s.down.Store(&down)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// watchOnce observes every domain and then each change, until the connection breaks.
func (s *Service) watchOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := s.info(ctx); err != nil {
		return err
	}
	changes, err := s.Driver.Watch(ctx)
	if err != nil {
		return err
	}
	domains, err := s.Driver.Domains(ctx)
	if err != nil {
		return err
	}
	if s.down.Swap(nil) != nil {
		s.Log.Info("the hypervisor answers again")
	}
	for _, d := range domains {
		if d.Managed {
			s.observe(ctx, d.ID, vm.Observed{State: observed(d.State), Cause: "found"})
		}
	}
	probe := time.NewTicker(infoTime)
	defer probe.Stop()
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				return hypervisor.ErrUnavailable
			}
			s.observe(ctx, c.ID, vm.Observed{State: observed(c.State), Gone: c.State == "", Cause: c.Cause})
		case <-probe.C:
			if _, err := s.info(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *Service) observe(ctx context.Context, id uuid.UUID, o vm.Observed) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	if err := engine.Observe(ctx, s.engine, s.machines, id, o.Cause, o); err != nil {
		s.Log.Error("record what was observed", "vm", id, "state", o.State, "err", err)
	}
}
