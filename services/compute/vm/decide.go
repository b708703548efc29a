package vm

import (
	"fmt"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// The commands from outside.
type (
	// Create accepts a new machine on this node. Facts of the node are looked up before.
	Create struct {
		events.Intent
		Spec vm.Spec
		Node uuid.UUID
		Host Host
	}
	// Define is the step of a create in which the domain is made known to the hypervisor.
	Define struct {
		events.Intent
		Sources []vm.Source
	}
	// Start runs the machine.
	Start struct{ events.Intent }
	// Stop ends it, by force or by asking the guest.
	Stop struct {
		events.Intent
		vm.StopData
	}
	// Pause holds the guest's CPUs.
	Pause struct{ events.Intent }
	// Resume lets a paused guest go on.
	Resume struct{ events.Intent }
	// Reset does what the machine's button does.
	Reset struct{ events.Intent }
	// Reboot asks the guest to boot again.
	Reboot struct{ events.Intent }
	// Delete accepts the end of the machine.
	Delete struct {
		events.Intent
		vm.DeleteData
	}
	// Remove is the step of a delete in which the domain is taken away from the hypervisor.
	Remove struct{ events.Intent }
)

// Host is what a node can give to one machine.
type Host struct {
	MaxCPUs  int
	MemoryMB int64
}

// exceeded are the fields of a configuration that ask for more than a node has.
func (h Host) exceeded(s vm.Spec) (fields []problem.Field) {
	if s.CPUs > h.MaxCPUs {
		fields = append(fields, problem.Field{Field: "cpus", Detail: fmt.Sprintf("is more than the %d that the hypervisor gives to one guest", h.MaxCPUs)})
	} else if s.MaxCPUs > h.MaxCPUs {
		fields = append(fields, problem.Field{Field: "max_cpus", Detail: fmt.Sprintf("is more than the %d that the hypervisor gives to one guest", h.MaxCPUs)})
	}
	if s.MemoryMB > h.MemoryMB {
		fields = append(fields, problem.Field{Field: "memory_mb", Detail: fmt.Sprintf("is more than the %d MiB of the node", h.MemoryMB)})
	}
	return fields
}

// The facts.
type (
	// Defined: the domain is known to the hypervisor.
	Defined struct {
		NativeID    string
		Accelerator string
	}
	// Settled: the effect of the intent was seen to have come about, leaving the machine in this state. Gone is for
	// a domain that the hypervisor does not know.
	Settled struct {
		State vm.State
		// Left is what a repair could not bring back.
		Left *Inspected
	}
	// Failed: the effect of the intent came to nothing. State is what was observed instead.
	Failed struct {
		Problem *problem.Problem
		State   vm.State
	}
	// ProcessEnded: the create or delete has ended, with its problem or nil.
	ProcessEnded struct {
		Operation uuid.UUID
		Problem   *problem.Problem
	}
)

// Decide says what happens.
func Decide(m Machine, c any) ([]any, error) {
	switch c := c.(type) {
	case Create:
		return m.create(c)
	case Import:
		return m.adopt(c)
	case Observed:
		return m.observed(c), nil
	case Inspected:
		return m.inspected(c)
	case Defined, Adopted, Settled, Failed:
		return m.fact(c)
	case ProcessEnded:
		return m.processEnded(c), nil
	}
	if !m.Exists || m.Ended {
		return nil, problem.New(problem.NotFound, "there is no such virtual machine")
	}
	switch c := c.(type) {
	case Define:
		return []any{vm.DefineRequested{Intent: c.Intent, Sources: c.Sources}}, nil
	case Start:
		return m.start(c)
	case Stop:
		return m.stop(c)
	case Pause:
		return m.power(vm.StateRunning, "paused", vm.PauseRequested(c))
	case Resume:
		return m.power(vm.StatePaused, "resumed", vm.ResumeRequested(c))
	case Reset:
		return m.power(vm.StateRunning, "reset", vm.ResetRequested(c))
	case Reboot:
		return m.power(vm.StateRunning, "rebooted", vm.RebootRequested(c))
	case Update:
		return m.update(c)
	case AttachNIC:
		return m.attachNIC(c)
	case DetachNIC:
		return m.detachNIC(c)
	case AttachDisk:
		return m.attachDisk(c)
	case DetachDisk:
		return m.detachDisk(c)
	case ResizeDisk:
		return m.resizeDisk(c)
	case ChangeDisk:
		return m.changeDisk(c)
	case Snapshot:
		return m.snapshot(c)
	case RestoreSnapshot:
		return m.restoreSnapshot(c)
	case DeleteSnapshot:
		return m.deleteSnapshot(c)
	case Delete:
		return m.delete(c)
	case Remove:
		return []any{vm.RemoveRequested{Intent: c.Intent}}, nil
	}
	return nil, fmt.Errorf("no such command: %T", c)
}

func (m Machine) create(c Create) ([]any, error) {
	if m.Exists {
		return nil, problem.New(problem.InvalidState, "the virtual machine exists already")
	}
	if fields := append(c.Host.exceeded(c.Spec), vm.Contradictions(c.Spec)...); fields != nil {
		return nil, problem.Invalid(fields...)
	}
	return []any{vm.CreateRequested{Spec: c.Spec, Node: c.Node, Operation: c.Operation}}, nil
}

func (m Machine) start(c Start) ([]any, error) {
	if p := m.busy(); p != nil {
		return nil, p
	}
	switch m.State {
	case vm.StateStopped:
		return []any{vm.StartRequested{Intent: c.Intent}}, nil
	case vm.StateRunning:
		return nil, problem.New(problem.InvalidState, "the virtual machine is running already")
	}
	return nil, problem.New(problem.InvalidState, "a virtual machine that is %s cannot be started", m.State)
}

func (m Machine) stop(c Stop) ([]any, error) {
	if p := m.busy(); p != nil && (!c.Force || !m.yields()) {
		return nil, p
	}
	switch m.State {
	case vm.StateRunning, vm.StatePaused, vm.StateStarting, vm.StateStopping, vm.StateUnknown:
	case vm.StateStopped:
		return nil, problem.New(problem.InvalidState, "the virtual machine is stopped already")
	default:
		return nil, problem.New(problem.InvalidState, "a virtual machine that is %s cannot be stopped", m.State)
	}
	if m.State == vm.StatePaused && !c.Force {
		return nil, problem.New(problem.InvalidState, "a paused guest cannot shut itself down; resume it, or stop it by force")
	}
	return []any{vm.StopRequested{Intent: c.Intent, Force: c.Force, TimeoutS: c.TimeoutS}}, nil
}

// power begins what a machine can only do in one state.
func (m Machine) power(in vm.State, done string, event any) ([]any, error) {
	if p := m.busy(); p != nil {
		return nil, p
	}
	if m.State != in {
		return nil, problem.New(problem.InvalidState, "a virtual machine that is %s cannot be %s", m.State, done)
	}
	return []any{event}, nil
}

// yields says whether what is under way may be overtaken by force: what changes the power, never a create or delete.
func (m Machine) yields() bool {
	if m.Process != uuid.Nil || m.Intent == nil {
		return false
	}
	switch m.Intent.Type {
	case "vm.start", "vm.stop", "vm.shutdown", "vm.pause", "vm.resume", "vm.reset", "vm.reboot", "vm.repair":
		return true
	}
	return false
}

func (m Machine) delete(c Delete) ([]any, error) {
	if p := m.busy(); p != nil && (!c.Force || !m.yields()) {
		return nil, p
	}
	switch m.State {
	case vm.StateStopped, vm.StateError:
	default:
		if !c.Force {
			return nil, problem.New(problem.InvalidState, "the virtual machine is %s; stop it first, or delete it by force", m.State)
		}
	}
	return []any{vm.DeleteRequested{Operation: c.Operation, Force: c.Force, KeepDisks: c.KeepDisks}}, nil
}

// fact ends the intent under way. Without one it is no news.
func (m Machine) fact(c any) ([]any, error) {
	if m.Intent == nil {
		return nil, nil
	}
	switch c := c.(type) {
	case Defined:
		return []any{vm.Created{NativeID: c.NativeID, Accelerator: c.Accelerator}}, nil
	case Adopted:
		return []any{vm.Imported{NativeID: c.NativeID, Accelerator: c.Accelerator, State: c.State}}, nil
	case Settled:
		if m.Intent.Type == "vm.repair" {
			return m.repaired(c)
		}
		if Changes(m.Intent.Type) {
			return []any{vm.Updated{Change: m.Update}}, nil
		}
		switch m.Intent.Type {
		case "vm.remove":
			return []any{vm.Removed{}}, nil
		case "vm.reset":
			return []any{vm.Reset{}}, nil
		case "vm.reboot":
			return []any{vm.Rebooted{}}, nil
		case "vm.snapshot":
			return []any{vm.Snapshotted{Taken: m.Take}}, nil
		case "vm.restore_snapshot":
			return []any{m.Restore}, nil
		case "vm.delete_snapshot":
			return []any{m.Drop}, nil
		}
		return []any{m.seen(c.State, "")}, nil
	case Failed:
		if Changes(m.Intent.Type) {
			return []any{vm.UpdateFailed{Problem: c.Problem}}, nil
		}
		switch m.Intent.Type {
		case "vm.define":
			return []any{vm.DefineFailed{Problem: c.Problem}}, nil
		case "vm.start":
			return []any{vm.StartFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.stop", "vm.shutdown":
			return []any{vm.StopFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.pause":
			return []any{vm.PauseFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.resume":
			return []any{vm.ResumeFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.reset":
			return []any{vm.ResetFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.reboot":
			return []any{vm.RebootFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.import":
			return []any{vm.ImportFailed{Problem: c.Problem}}, nil
		case "vm.repair":
			return []any{vm.RepairFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.snapshot":
			return []any{vm.SnapshotFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.restore_snapshot":
			return []any{vm.RestoreFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.delete_snapshot":
			return []any{vm.SnapshotRemoveFailed{Problem: c.Problem, State: c.State}}, nil
		case "vm.remove":
			return []any{vm.RemoveFailed{Problem: c.Problem, State: c.State}}, nil
		}
	}
	return nil, nil
}

// seen is the event of a machine that was seen in a state.
func (m Machine) seen(s vm.State, cause string) any {
	switch s {
	case vm.StateRunning:
		if m.State == vm.StatePaused || m.State == vm.StateUnknown { // it need not have started anew
			return vm.Resumed{Cause: cause}
		}
		return vm.Started{Cause: cause}
	case vm.StatePaused:
		return vm.Paused{Cause: cause}
	case vm.StateStopped:
		return vm.Stopped{Cause: cause}
	}
	return vm.Lost{Cause: cause}
}

func (m Machine) processEnded(c ProcessEnded) []any {
	if m.Process == uuid.Nil || m.Process != c.Operation {
		return nil // a create whose domain was defined before its start failed
	}
	switch {
	case m.State == vm.StateCreating:
		return []any{vm.CreateFailed{Problem: c.Problem}}
	case m.State != vm.StateDeleting:
		return []any{vm.DiskChangeEnded{Problem: c.Problem}}
	case c.Problem == nil:
		return []any{vm.Deleted{}}
	case !m.Defined:
		return []any{vm.DeleteFailed{Problem: c.Problem, State: vm.StateError}}
	}
	return []any{vm.DeleteFailed{Problem: c.Problem, State: m.Before}}
}
