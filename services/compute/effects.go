package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

const (
	callTime        = 60 * time.Second  // one attempt of an effect at the driver
	shutdownTime    = 120 * time.Second // a guest's, where the request does not say
	shutdownAskEach = 10 * time.Second  // a guest that still boots loses the request
	shutdownLook    = 500 * time.Millisecond
)

// perform brings about the effect of a machine's intent.
func (s *Service) perform(ctx context.Context, id uuid.UUID, m vm.Machine) (any, error) {
	if m.Intent.Type == "vm.shutdown" || m.Intent.Type == "vm.stop" && !m.Force {
		return s.shutdown(ctx, id, m)
	}
	limit := callTime
	if vm.Snapshots(m.Intent.Type) {
		limit = snapshotTime
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	switch m.Intent.Type {
	case "vm.define":
		return s.define(ctx, id, m)
	case "vm.start":
		return vm.Settled{State: wire.StateRunning}, driverError(s.Driver.Start(ctx, id))
	case "vm.stop":
		return vm.Settled{State: wire.StateStopped}, driverError(s.Driver.Destroy(ctx, id))
	case "vm.pause":
		return vm.Settled{State: wire.StatePaused}, driverError(s.Driver.Pause(ctx, id))
	case "vm.resume":
		return vm.Settled{State: wire.StateRunning}, driverError(s.Driver.Resume(ctx, id))
	case "vm.reset":
		return vm.Settled{State: wire.StateRunning}, driverError(s.Driver.Reset(ctx, id))
	case "vm.reboot":
		return vm.Settled{State: wire.StateRunning}, driverError(s.Driver.Reboot(ctx, id))
	case "vm.update", "vm.attach_network", "vm.detach_network", "vm.change_disk":
		return vm.Settled{}, driverError(s.change(ctx, id, m))
	case "vm.import":
		return s.adopt(ctx, id)
	case "vm.repair":
		return s.repair(ctx, id, m)
	case "vm.remove":
		return vm.Settled{}, driverError(s.remove(ctx, id, m))
	case "vm.snapshot":
		return vm.Settled{}, snapshotError(s.snapshot(ctx, id, m))
	case "vm.restore_snapshot":
		return vm.Settled{}, snapshotError(s.restoreSnapshot(ctx, id, m))
	case "vm.delete_snapshot":
		return vm.Settled{}, snapshotError(s.Driver.DeleteSnapshot(ctx, id, m.Drop.Name))
	}
	return nil, fmt.Errorf("no effect for intent %s", m.Intent.Type)
}

func (s *Service) define(ctx context.Context, id uuid.UUID, m vm.Machine) (any, error) {
	if d, err := s.Driver.Domain(ctx, id); err == nil && d.Managed {
		return vm.Defined{NativeID: d.NativeID, Accelerator: string(s.Accelerator)}, nil // by an earlier life of ours
	}
	spec, err := s.spec(ctx, id, m.Spec, m.Sources)
	if err != nil {
		return nil, err
	}
	d, err := s.Driver.Define(ctx, spec)
	if errors.Is(err, hypervisor.ErrAlreadyExists) {
		p := problem.New(problem.NameTaken, "the hypervisor has a machine of that name which is not ours")
		p.Fields = []problem.Field{{Field: "name", Detail: "is taken at the hypervisor"}}
		return nil, fmt.Errorf("%w: %w", p, err)
	}
	return vm.Defined{NativeID: d.NativeID, Accelerator: string(s.Accelerator)}, driverError(err)
}

// remove takes a domain away. One that is gone already is what was wanted. Snapshots are in the disks and go with them;
// disks that are kept, as those that others made are, are kept without.
func (s *Service) remove(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	if err := s.Driver.Destroy(ctx, id); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return err
	}
	if m.Delete.KeepDisks || m.Spec.Adopted {
		for _, o := range m.Snapshots.All {
			if err := s.Driver.DeleteSnapshot(ctx, id, o.Name); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
				return err
			}
		}
	}
	return s.Driver.Undefine(ctx, id)
}

// shutdown asks the guest to power off, again and again, until it is off or its time has run out.
func (s *Service) shutdown(ctx context.Context, id uuid.UUID, m vm.Machine) (any, error) {
	limit := shutdownTime
	if m.TimeoutS > 0 {
		limit = time.Duration(m.TimeoutS) * time.Second
	}
	end, ask := s.Clock().Add(limit), time.Time{}
	for {
		now := s.Clock()
		d, err := s.domain(ctx, id)
		switch {
		case err != nil:
			return nil, driverError(err)
		case d.State == hypervisor.Off || d.State == hypervisor.Crashed:
			return vm.Settled{State: wire.StateStopped}, nil
		case !now.Before(end):
			return nil, problem.New(problem.DeadlineExceeded, "the guest did not shut down within %s; stop it by force", limit)
		case now.Sub(ask) >= shutdownAskEach:
			ask = now
			if err := s.ask(ctx, id); err != nil && !errors.Is(err, hypervisor.ErrConflict) {
				return nil, driverError(err)
			}
		}
		if err := engine.Pause(ctx, shutdownLook); err != nil {
			return nil, err
		}
	}
}

func (s *Service) domain(ctx context.Context, id uuid.UUID) (hypervisor.Domain, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	return s.Driver.Domain(ctx, id)
}

func (s *Service) ask(ctx context.Context, id uuid.UUID) error {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	return s.Driver.Shutdown(ctx, id)
}

// failed observes what holds instead of the effect that came to nothing. A running guest that took a part of a change
// gets what it had.
func (s *Service) failed(ctx context.Context, id uuid.UUID, m vm.Machine, p *problem.Problem) any {
	if vm.Changes(m.Intent.Type) {
		if err := s.restore(ctx, id, m); err != nil {
			s.Log.Warn("a change that failed may have been made in part", "vm", id, "err", err)
		}
	}
	if vm.Snapshots(m.Intent.Type) {
		if err := s.unsnapshot(ctx, id, m); err != nil {
			s.Log.Warn("what failed about a snapshot may have been done in part", "vm", id, "snapshot", m.Intent.Type, "err", err)
		}
	}
	d, err := s.domain(ctx, id)
	state := wire.StateUnknown
	switch {
	case err == nil:
		state = observed(d.State)
	case errors.Is(err, hypervisor.ErrNotFound):
		state = wire.StateError
	}
	return vm.Failed{Problem: p, State: state}
}

func observed(s hypervisor.State) wire.State {
	switch s {
	case hypervisor.Running:
		return wire.StateRunning
	case hypervisor.Paused:
		return wire.StatePaused
	case hypervisor.Off, hypervisor.Crashed:
		return wire.StateStopped
	}
	return wire.StateUnknown
}

// driverError says what a driver's failure means for the effect: try again, or give up with this problem. The
// driver's own words stay in the chain for the log.
func driverError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hypervisor.ErrUnavailable), errors.Is(err, hypervisor.ErrUnknown), errors.Is(err, hypervisor.ErrBusy),
		errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", engine.ErrAgain, err)
	case errors.Is(err, hypervisor.ErrExhausted):
		return fmt.Errorf("%w: %w", problem.New(problem.InsufficientResources, "the node has not enough memory or disk for the guest"), err)
	case errors.Is(err, hypervisor.ErrInvalid), errors.Is(err, hypervisor.ErrUnsupported):
		return fmt.Errorf("%w: %w", problem.New(problem.InvalidValue, "the hypervisor refuses this configuration; the operation's log says why"), err)
	case errors.Is(err, hypervisor.ErrRefused):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the guest does not let go of the device; try again when it has booted, or stop it first"), err)
	case errors.Is(err, hypervisor.ErrNotFound):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the hypervisor does not know this machine any more"), err)
	case errors.Is(err, hypervisor.ErrConflict):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the guest is in another state than it was when this was asked"), err)
	}
	return err
}
