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

// Disk of a virtual machine, as asked for. Volume and VolumeName are filled in when the create is accepted.
type Disk struct {
	Pool       string    `json:"pool"`
	SizeGB     int64     `json:"size_gb"` // GiB
	Format     string    `json:"format"`  // raw or qcow2
	Image      *string   `json:"image"`
	Bus        string    `json:"bus"` // virtio, scsi, sata
	BootOrder  *int      `json:"boot_order"`
	PoolID     uuid.UUID `json:"pool_id,omitzero"`
	VolumeID   uuid.UUID `json:"volume_id,omitzero"`
	VolumeName string    `json:"volume,omitempty"`
}

// NIC of a virtual machine.
type NIC struct {
	Network string  `json:"network"`
	Model   string  `json:"model"` // virtio, e1000
	MAC     *string `json:"mac"`
}

// Boot says what a virtual machine starts from besides its disks. Paths are absolute on the node.
type Boot struct {
	Kernel  *string `json:"kernel"`
	Initrd  *string `json:"initrd"`
	Cmdline *string `json:"cmdline"`
	ISO     *string `json:"iso"`
}

// Spec is the configuration of a virtual machine, with every default filled in.
type Spec struct {
	Name        string   `json:"name"`
	Backend     string   `json:"backend"` // qemu
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	CPUs        int      `json:"cpus"`
	MemoryMB    int64    `json:"memory_mb"` // MiB
	CPUModel    string   `json:"cpu_model"`
	Machine     string   `json:"machine"`
	Firmware    string   `json:"firmware"`
	Disks       []Disk   `json:"disks"`
	Networks    []NIC    `json:"networks"`
	Boot        Boot     `json:"boot"`
	Autostart   bool     `json:"autostart"`
	OnDrift     string   `json:"on_drift"` // record or repair
}

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

// UpdateData is the data of vm.update: nil leaves a value as it is.
type UpdateData struct {
	Description *string   `json:"description,omitempty"`
	Tags        *[]string `json:"tags,omitempty"`
	Autostart   *bool     `json:"autostart,omitempty"`
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

// Lost says that the domain vanished behind our back.
type Lost struct {
	Cause string `json:"cause,omitempty"`
}

// Updated is a change of the configuration that needs no effect at once.
type Updated struct {
	UpdateData
}

// UpdateRequested is the intent to bring a changed configuration to the hypervisor.
type UpdateRequested struct {
	events.Intent
	UpdateData
}

// UpdateFailed says that the hypervisor did not take the change; the configuration is what it was.
type UpdateFailed struct {
	Problem *problem.Problem `json:"problem"`
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
	events.TypeOf[CreateRequested]("vm.create_requested"),
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
	events.TypeOf[Lost]("vm.lost"),
	events.TypeOf[Updated]("vm.updated"),
	events.TypeOf[UpdateRequested]("vm.update_requested"),
	events.TypeOf[UpdateFailed]("vm.update_failed"),
	events.TypeOf[DeleteRequested]("vm.delete_requested"),
	events.TypeOf[RemoveRequested]("vm.remove_requested"),
	events.TypeOf[Removed]("vm.removed"),
	events.TypeOf[RemoveFailed]("vm.remove_failed"),
	events.TypeOf[DeleteFailed]("vm.delete_failed"),
	events.TypeOf[Deleted]("vm.deleted"),
)
