// Package vm is the language of virtual machines.
package vm

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Kind of the streams of virtual machines.
const Kind = "vm"

// NameScope is where names of virtual machines are unique.
const NameScope = "vm"

// State of a virtual machine.
type State string

// The states.
const (
	StateCreating State = "creating"
	StateStopped  State = "stopped"
	StateStarting State = "starting"
	StateRunning  State = "running"
	StatePaused   State = "paused"
	StateStopping State = "stopping"
	StateDeleting State = "deleting"
	StateError    State = "error"
	StateUnknown  State = "unknown"
)

// CreateData is the data of vm.create.
type CreateData struct {
	Spec  Spec       `json:"spec"`
	Node  *uuid.UUID `json:"node,omitempty"`
	Start bool       `json:"start"`
}

// StopData is the data of vm.stop (Force) and vm.shutdown.
type StopData struct {
	Force    bool `json:"force"`
	TimeoutS int  `json:"timeout_s,omitempty"` // how long the guest may take; 0 means 120
}

// DeleteData is the data of vm.delete.
type DeleteData struct {
	Force     bool `json:"force"`
	KeepDisks bool `json:"keep_disks"`
}

// CreateRequested is the accepted create: the name is claimed, nothing exists at the hypervisor.
type CreateRequested struct {
	Spec      Spec      `json:"spec"`
	Node      uuid.UUID `json:"node"`
	Operation uuid.UUID `json:"operation"`
}

// CreateFailed ends a virtual machine whose create was taken back.
type CreateFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// DefineRequested is the intent to define the domain, with the sources of its disks on the node.
type DefineRequested struct {
	events.Intent
	Sources []Source `json:"sources"`
}

// Source is where a disk's bytes are on the node.
type Source struct {
	Type   string `json:"type"` // file or block
	Path   string `json:"path"`
	Format string `json:"format"` // raw or qcow2
}

// Created says that the domain is defined.
type Created struct {
	NativeID    string `json:"native_id"`
	Accelerator string `json:"accelerator"` // kvm or tcg
}

// DefineFailed says that the domain could not be defined.
type DefineFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// StartRequested is the intent to start.
type StartRequested struct{ events.Intent }

// Started says that the domain runs. Cause is empty when we started it, otherwise what was observed.
type Started struct {
	Cause string `json:"cause,omitempty"`
}

// StartFailed says that the start did not come about. State is what was observed after it.
type StartFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// StopRequested is the intent to stop: by force, or by asking the guest.
type StopRequested struct {
	events.Intent
	Force    bool `json:"force"`
	TimeoutS int  `json:"timeout_s,omitempty"`
}

// Stopped says that the domain is off.
type Stopped struct {
	Cause string `json:"cause,omitempty"`
}

// StopFailed says that the stop did not come about.
type StopFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// PauseRequested is the intent to hold the guest's CPUs.
type PauseRequested struct{ events.Intent }

// Paused says that the guest's CPUs are held. Cause is empty when we did it, otherwise what was observed.
type Paused struct {
	Cause string `json:"cause,omitempty"`
}

// PauseFailed says that the pause did not come about. State is what was observed after it.
type PauseFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// ResumeRequested is the intent to let a paused guest go on.
type ResumeRequested struct{ events.Intent }

// Resumed says that a paused guest goes on. Cause is empty when we did it, otherwise what was observed.
type Resumed struct {
	Cause string `json:"cause,omitempty"`
}

// ResumeFailed says that the resume did not come about. State is what was observed after it.
type ResumeFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// ResetRequested is the intent to reset the machine as its button would.
type ResetRequested struct{ events.Intent }

// Reset says that the machine was reset.
type Reset struct{}

// ResetFailed says that the reset did not come about. State is what was observed after it.
type ResetFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// RebootRequested is the intent to ask the guest to boot again.
type RebootRequested struct{ events.Intent }

// Rebooted says that the guest was asked.
type Rebooted struct{}

// RebootFailed says that the guest could not be asked. State is what was observed after it.
type RebootFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// Lost says that the domain vanished behind our back.
type Lost struct {
	Cause string `json:"cause,omitempty"`
}

// DeleteRequested is the accepted delete.
type DeleteRequested struct {
	Operation uuid.UUID `json:"operation"`
	Force     bool      `json:"force"`
	KeepDisks bool      `json:"keep_disks"`
}

// RemoveRequested is the intent to take the domain away from the hypervisor.
type RemoveRequested struct{ events.Intent }

// Removed says that the hypervisor has no such domain any more.
type Removed struct{}

// RemoveFailed says that the domain could not be removed.
type RemoveFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// DeleteFailed ends a delete that could not go on; it can be asked for again.
type DeleteFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// Deleted ends a virtual machine. Its name is free.
type Deleted struct{}

// Codec of virtual machines.
var Codec = events.NewCodec(Kind,
	events.TypeOf[CreateRequested]("vm.create_requested", nameDevices),
	events.TypeOf[CreateFailed]("vm.create_failed"),
	events.TypeOf[DefineRequested]("vm.define_requested"),
	events.TypeOf[Created]("vm.created"),
	events.TypeOf[DefineFailed]("vm.define_failed"),
	events.TypeOf[StartRequested]("vm.start_requested"),
	events.TypeOf[Started]("vm.started"),
	events.TypeOf[StartFailed]("vm.start_failed"),
	events.TypeOf[StopRequested]("vm.stop_requested"),
	events.TypeOf[Stopped]("vm.stopped"),
	events.TypeOf[StopFailed]("vm.stop_failed"),
	events.TypeOf[PauseRequested]("vm.pause_requested"),
	events.TypeOf[Paused]("vm.paused"),
	events.TypeOf[PauseFailed]("vm.pause_failed"),
	events.TypeOf[ResumeRequested]("vm.resume_requested"),
	events.TypeOf[Resumed]("vm.resumed"),
	events.TypeOf[ResumeFailed]("vm.resume_failed"),
	events.TypeOf[ResetRequested]("vm.reset_requested"),
	events.TypeOf[Reset]("vm.reset"),
	events.TypeOf[ResetFailed]("vm.reset_failed"),
	events.TypeOf[RebootRequested]("vm.reboot_requested"),
	events.TypeOf[Rebooted]("vm.rebooted"),
	events.TypeOf[RebootFailed]("vm.reboot_failed"),
	events.TypeOf[Lost]("vm.lost"),
	events.TypeOf[Updated]("vm.updated", collectChanged),
	events.TypeOf[UpdateRequested]("vm.update_requested", collectChanged),
	events.TypeOf[UpdateFailed]("vm.update_failed"),
	events.TypeOf[Drifted]("vm.drifted"),
	events.TypeOf[RepairRequested]("vm.repair_requested"),
	events.TypeOf[Repaired]("vm.repaired"),
	events.TypeOf[RepairFailed]("vm.repair_failed"),
	events.TypeOf[RepairGivenUp]("vm.repair_given_up"),
	events.TypeOf[ImportRequested]("vm.import_requested"),
	events.TypeOf[Imported]("vm.imported"),
	events.TypeOf[ImportFailed]("vm.import_failed"),
	events.TypeOf[DiskChangeRequested]("vm.disk_change_requested"),
	events.TypeOf[DiskChangeEnded]("vm.disk_change_ended"),
	events.TypeOf[SnapshotRequested]("vm.snapshot_requested"),
	events.TypeOf[Snapshotted]("vm.snapshotted"),
	events.TypeOf[SnapshotFailed]("vm.snapshot_failed"),
	events.TypeOf[RestoreRequested]("vm.restore_requested"),
	events.TypeOf[Restored]("vm.restored"),
	events.TypeOf[RestoreFailed]("vm.restore_failed"),
	events.TypeOf[SnapshotRemoveRequested]("vm.snapshot_remove_requested"),
	events.TypeOf[SnapshotRemoved]("vm.snapshot_removed"),
	events.TypeOf[SnapshotRemoveFailed]("vm.snapshot_remove_failed"),
	events.TypeOf[DeleteRequested]("vm.delete_requested"),
	events.TypeOf[RemoveRequested]("vm.remove_requested"),
	events.TypeOf[Removed]("vm.removed"),
	events.TypeOf[RemoveFailed]("vm.remove_failed"),
	events.TypeOf[DeleteFailed]("vm.delete_failed"),
	events.TypeOf[Deleted]("vm.deleted"),
)
