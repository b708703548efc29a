package compute

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// snapshotTime is one attempt at a snapshot, whose memory is written to a disk or read from it.
const snapshotTime = 10 * time.Minute

var (
	decodeSnapshot = decodeWith(func(i events.Intent, d wire.SnapshotData) vm.Snapshot {
		return vm.Snapshot{Intent: i, SnapshotData: d}
	})
	decodeRestoreSnapshot = decodeWith(func(i events.Intent, d wire.SnapshotNameData) vm.RestoreSnapshot {
		return vm.RestoreSnapshot{Intent: i, SnapshotNameData: d}
	})
	decodeDeleteSnapshot = decodeWith(func(i events.Intent, d wire.SnapshotNameData) vm.DeleteSnapshot {
		return vm.DeleteSnapshot{Intent: i, SnapshotNameData: d}
	})
)

// prepareSnapshot looks whether the hypervisor has a snapshot of the name: after the decision one that is there is ours.
func (s *Service) prepareSnapshot(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(vm.Snapshot)
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	all, err := s.Driver.Snapshots(ctx, cmd.Target)
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) { // what is missing is the decider's to say
		s.Log.Warn("ask the hypervisor for snapshots", "err", err)
		return nil, unavailable()
	}
	for _, o := range all {
		if o.Name == c.Name {
			return nil, vm.SnapshotNameTaken("the hypervisor has a snapshot of that name already")
		}
	}
	return c, nil
}

func (s *Service) snapshot(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	t := m.Take
	if err := s.Driver.Snapshot(ctx, id, hypervisor.Snapshot{Name: t.Name, Description: t.Description, Memory: t.Memory}); err != nil {
		return err
	}
	return s.goOn(ctx, id, t.State)
}

// goOn lets a guest run that is to. It is held while its memory is written, and a daemon that died then has left it so.
func (s *Service) goOn(ctx context.Context, id uuid.UUID, state wire.State) error {
	if state != wire.StateRunning {
		return nil
	}
	if err := s.Driver.Resume(ctx, id); err != nil && !errors.Is(err, hypervisor.ErrConflict) { // it has gone off since
		return err
	}
	return nil
}

// restoreSnapshot brings the machine back, which to the hypervisor includes the configuration of then; and that of now.
func (s *Service) restoreSnapshot(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	if err := s.Driver.RestoreSnapshot(ctx, id, m.Restore.Name); err != nil {
		return err
	}
	live, err := wire.Overlay(m.Spec, m.Restore.Changed)
	if err != nil {
		return err
	}
	if err := s.configured(ctx, id, m, live, m.Restore.Pending); err != nil {
		return err
	}
	return s.goOn(ctx, id, m.Restore.State)
}

// configured gives the domain the configuration that it is recorded to have.
func (s *Service) configured(ctx context.Context, id uuid.UUID, m vm.Machine, live wire.Spec, pending wire.Fields) error {
	next, err := wire.Overlay(live, pending)
	if err != nil {
		return err
	}
	if err := s.enforce(ctx, id, m, live, next); err != nil {
		return err
	}
	return s.Driver.SetDescription(ctx, id, next.Description)
}

// unsnapshot takes back what an effect that failed may have left: a snapshot that nobody knows of, or the configuration
// of another time.
func (s *Service) unsnapshot(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	switch m.Intent.Type {
	case "vm.snapshot":
		return s.Driver.DeleteSnapshot(ctx, id, m.Take.Name)
	case "vm.restore_snapshot":
		return s.configured(ctx, id, m, m.Spec, m.Pending)
	}
	return nil
}

// snapshotError says what a driver's failure means for an effect on a snapshot.
func snapshotError(err error) error {
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the hypervisor does not know this snapshot, or this machine, any more"), err)
	case errors.Is(err, hypervisor.ErrInvalid), errors.Is(err, hypervisor.ErrUnsupported):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the hypervisor refuses; the operation's log says why"), err)
	}
	return driverError(err)
}
