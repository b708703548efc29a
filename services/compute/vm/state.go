// Package vm decides about virtual machines. It is pure: whatever is looked up or observed comes in a command.
package vm

import (
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Machine is the private state of a virtual machine.
type Machine struct {
	Exists      bool
	Ended       bool // deleted, or its create was taken back
	Spec        vm.Spec
	Node        uuid.UUID
	NativeID    string
	Accelerator string
	State       vm.State
	Defined     bool
	// Wanted is the state that commands have led to, and what others changed is brought back to, where it is.
	Wanted     vm.State
	Repairs    int // one after the other
	RepairedAt time.Time
	GaveUp     bool
	Transient  bool // forgotten by the hypervisor once it stops
	// Pending are the fields of Spec that the guest takes at its next start.
	Pending vm.Fields
	// BootMemoryMB is what the guest was started with, which its balloon cannot exceed.
	BootMemoryMB int64
	// Sources of disks by their names, of those that have gone too.
	Sources map[string]vm.Source
	// Strayed are disks of ours that others took away: their volumes are this machine's still.
	Strayed []vm.Disk
	// Process is the create or delete that is under way.
	Process uuid.UUID
	// Intent is the effect that is under way, with what it needs.
	Intent   *events.Intent
	Before   vm.State // the state to go back to when the intent comes to nothing
	Force    bool     // of a stop
	TimeoutS int      // of a stop
	Update   vm.Change
	Disk     vm.DiskChangeRequested // the process is about
	Delete   vm.DeleteRequested
	// Snapshots, each with the machine as it was then.
	Snapshots vm.Snapshots
	Past      map[string]Past
	Take      vm.Taken           // of a snapshot
	Restore   vm.Restored        // of a restore
	Drop      vm.SnapshotRemoved // of the delete of a snapshot
}

// Decider of virtual machines.
var Decider = eventstore.Decider[Machine]{
	Initial: func() Machine { return Machine{} },
	Decide:  Decide,
	Evolve:  Evolve,
}

// Intent is the effect that a machine waits for.
func Intent(m Machine) *events.Intent { return m.Intent }

// Names are what an event claims and releases.
func Names(m Machine, event any) (claim, release []eventstore.Name) {
	switch ev := event.(type) {
	case vm.CreateRequested:
		return []eventstore.Name{{Scope: vm.NameScope, Value: ev.Spec.Name}}, nil
	case vm.ImportRequested:
		return []eventstore.Name{{Scope: vm.NameScope, Value: ev.Spec.Name}}, nil
	case vm.CreateFailed, vm.ImportFailed, vm.Deleted:
		return nil, []eventstore.Name{{Scope: vm.NameScope, Value: m.Spec.Name}}
	}
	return nil, nil
}

// Evolve folds one event. Unknown ones change nothing.
func Evolve(m Machine, event any) Machine {
	begin := func(i events.Intent, s vm.State) {
		if m.Intent == nil {
			m.Before = m.State
		}
		m.Intent = &i
		if s != "" {
			m.State = s
		}
	}
	// reached says that a state is what it is to be: a command led to it, or the policy takes what comes.
	reached := func(s vm.State, cause string) {
		if cause == "" || m.Spec.OnDrift != "repair" || ofTheGuest(s, cause) {
			m.Wanted, m.Repairs, m.GaveUp = s, 0, false
		}
	}
	settle := func(s vm.State) {
		if s == vm.StateStopped {
			m = m.restarted() // nothing runs that it would differ from
		}
		m.Intent, m.State = nil, s
	}
	switch ev := event.(type) {
	case vm.CreateRequested:
		m.Exists, m.Spec, m.Node, m.Process, m.State = true, ev.Spec, ev.Node, ev.Operation, vm.StateCreating
	case vm.CreateFailed:
		m.Ended, m.Process = true, uuid.Nil
		settle(vm.StateError)
	case vm.DefineRequested:
		m.Sources = sourcesOf(m.Spec.Disks, ev.Sources)
		begin(ev.Intent, "")
	case vm.ImportRequested:
		m.Exists, m.Spec, m.Node, m.Ended, m.State = true, ev.Spec, ev.Node, false, vm.StateCreating
		m.Sources = sourcesOf(ev.Spec.Disks, ev.Sources)
		begin(ev.Intent, "")
	case vm.Imported:
		m.Defined, m.NativeID, m.Accelerator = true, ev.NativeID, ev.Accelerator
		m.BootMemoryMB = m.Spec.MemoryMB
		reached(ev.State, "")
		settle(ev.State)
	case vm.ImportFailed:
		m.Ended = true
		settle(vm.StateError)
	case vm.Created:
		reached(vm.StateStopped, "")
		m.Defined, m.NativeID, m.Accelerator, m.Process = true, ev.NativeID, ev.Accelerator, uuid.Nil
		settle(vm.StateStopped)
	case vm.DefineFailed:
		settle(vm.StateCreating)
	case vm.StartRequested:
		begin(ev.Intent, vm.StateStarting)
	case vm.Started:
		m = m.restarted()
		reached(vm.StateRunning, ev.Cause)
		settle(vm.StateRunning)
	case vm.StartFailed:
		settle(ev.State)
	case vm.StopRequested:
		m.Force, m.TimeoutS = ev.Force, ev.TimeoutS
		begin(ev.Intent, vm.StateStopping)
	case vm.Stopped:
		reached(vm.StateStopped, ev.Cause)
		settle(vm.StateStopped)
	case vm.StopFailed:
		settle(ev.State)
	case vm.PauseRequested:
		begin(ev.Intent, "")
	case vm.Paused:
		reached(vm.StatePaused, ev.Cause)
		settle(vm.StatePaused)
	case vm.PauseFailed:
		settle(ev.State)
	case vm.ResumeRequested:
		begin(ev.Intent, "")
	case vm.Resumed:
		reached(vm.StateRunning, ev.Cause)
		settle(vm.StateRunning)
	case vm.Reset, vm.Rebooted:
		settle(vm.StateRunning)
	case vm.ResumeFailed:
		settle(ev.State)
	case vm.ResetRequested:
		begin(ev.Intent, "")
	case vm.ResetFailed:
		settle(ev.State)
	case vm.RebootRequested:
		begin(ev.Intent, "")
	case vm.RebootFailed:
		settle(ev.State)
	case vm.Lost:
		m = m.restarted() // nothing runs that what is pending could differ from
		m.Transient = false
		m.Defined = false
		settle(vm.StateError)
	case vm.UpdateRequested:
		m.Update = ev.Change
		begin(ev.Intent, "")
	case vm.Updated:
		m = m.changed(ev.Change)
		m.Intent = nil
	case vm.UpdateFailed:
		m.Intent = nil
	case vm.SnapshotRequested:
		m.Take = ev.Taken
		begin(ev.Intent, "")
	case vm.Snapshotted:
		m = m.taken(ev.Taken)
		m.Intent = nil
	case vm.SnapshotFailed:
		settle(ev.State)
	case vm.RestoreRequested:
		m.Restore = ev.Restored
		begin(ev.Intent, "")
	case vm.Restored:
		m = m.at(ev)
		reached(ev.State, "")
		settle(ev.State)
	case vm.RestoreFailed:
		settle(ev.State)
	case vm.SnapshotRemoveRequested:
		m.Drop = ev.SnapshotRemoved
		begin(ev.Intent, "")
	case vm.SnapshotRemoved:
		m = m.without(ev.Name)
		m.Intent = nil
	case vm.SnapshotRemoveFailed:
		settle(ev.State)
	case vm.Drifted:
		m = m.drifted(ev.Change)
		m.Transient = ev.Transient
	case vm.RepairRequested:
		begin(ev.Intent, "")
		if ev.At.Sub(m.RepairedAt) >= repairWindow {
			m.Repairs = 0
		}
		m.Repairs, m.RepairedAt = m.Repairs+1, ev.At
	case vm.Repaired:
		m = m.drifted(ev.Change)
		m.Defined, m.Transient = true, ev.Transient
		settle(ev.State)
	case vm.RepairFailed:
		m.Defined = ev.State != vm.StateError
		settle(ev.State)
	case vm.RepairGivenUp:
		m.GaveUp = true
	case vm.DiskChangeRequested:
		m.Process, m.Disk = ev.Operation, ev
	case vm.DiskChangeEnded:
		m.Process = uuid.Nil
	case vm.DeleteRequested:
		m.Process, m.Delete, m.Before, m.State = ev.Operation, ev, m.State, vm.StateDeleting
		m.Intent = nil
	case vm.RemoveRequested:
		m.Intent = &ev.Intent
	case vm.Removed:
		m.Defined, m.Intent = false, nil
	case vm.RemoveFailed:
		m.Intent, m.Before = nil, ev.State
	case vm.DeleteFailed:
		m.Process = uuid.Nil
		settle(ev.State)
	case vm.Deleted:
		m.Ended, m.Process, m.Intent = true, uuid.Nil, nil
	}
	return m
}

// changed is the machine with a change of its configuration.
func (m Machine) changed(c vm.Change) Machine {
	if next, err := vm.Overlay(m.Spec, c.Changed); err == nil { // recorded by Decide, from a Spec
		m.Spec = next
	}
	m.Pending = c.Pending
	if len(c.Sources) > 0 {
		m.Sources = maps.Clone(m.Sources)
		maps.Copy(m.Sources, c.Sources)
	}
	return m
}

// drifted is changed by others: disks of ours that are in no configuration any more have strayed, and may come back.
func (m Machine) drifted(c vm.Change) Machine {
	known := slices.Concat(m.Spec.Disks, m.Strayed)
	m = m.changed(c)
	wanted, err := m.wanted()
	if err != nil {
		return m // recorded by Decide
	}
	m.Strayed = slices.DeleteFunc(known, func(d vm.Disk) bool {
		return d.VolumeID == uuid.Nil || diskAt(m.Spec, d.Name) >= 0 || diskAt(wanted, d.Name) >= 0
	})
	if len(m.Strayed) == 0 {
		m.Strayed = nil
	}
	return m
}

// sourcesOf gives each disk's name its source.
func sourcesOf(disks []vm.Disk, sources []vm.Source) map[string]vm.Source {
	named := map[string]vm.Source{}
	for i, s := range sources {
		if i < len(disks) {
			named[disks[i].Name] = s
		}
	}
	return named
}

// restarted is the machine whose guest takes what was pending.
func (m Machine) restarted() Machine {
	m = m.changed(vm.Change{Changed: m.Pending})
	m.BootMemoryMB = m.Spec.MemoryMB
	return m
}

// busy names what is under way, nil if nothing is.
func (m Machine) busy() *problem.Problem {
	op := m.Process
	if m.Intent != nil && m.Intent.Operation != uuid.Nil {
		op = m.Intent.Operation
	}
	if op == uuid.Nil && m.Intent == nil {
		return nil
	}
	p := problem.New(problem.InvalidState, "the virtual machine is %s; another operation is under way", m.State)
	if op != uuid.Nil {
		p.Operation = op.String()
	}
	return p
}
