package vm

import (
	"maps"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// View is a virtual machine as the API returns it.
type View struct {
	events.Common
	Backend     string     `json:"backend"`
	Node        uuid.UUID  `json:"node"`
	Description string     `json:"description"`
	Tags        []string   `json:"tags"`
	CPUs        int        `json:"cpus"`
	MaxCPUs     int        `json:"max_cpus"`
	MemoryMB    int64      `json:"memory_mb"`
	CPUModel    string     `json:"cpu_model"`
	Machine     string     `json:"machine"`
	Firmware    string     `json:"firmware"`
	SecureBoot  bool       `json:"secure_boot"`
	TPM         bool       `json:"tpm"`
	Disks       []Disk     `json:"disks"`
	Networks    []NIC      `json:"networks"`
	Boot        Boot       `json:"boot"`
	Serial      bool       `json:"serial"`
	VNC         VNC        `json:"vnc"`
	Agent       bool       `json:"agent"`
	RNG         bool       `json:"rng"`
	CloudInit   *string    `json:"cloud_init"`
	Autostart   bool       `json:"autostart"`
	OnDrift     string     `json:"on_drift"`
	Adopted     bool       `json:"adopted"`
	Transient   bool       `json:"transient"`
	Accelerator *string    `json:"accelerator"`
	Pending     Fields     `json:"pending"`
	Snapshots   []Snapshot `json:"snapshots"`
	Snapshot    *string    `json:"snapshot"` // the one that it is at or has gone on from
	State       State      `json:"state"`
	NativeID    *string    `json:"native_id"`
	HA          *string    `json:"ha"`
	ObservedAt  *time.Time `json:"observed_at"`
}

// Resource describes virtual machines to the gateway.
var Resource = events.Resource{
	Kind: Kind, Collection: "vms", Domain: "compute", NameScope: NameScope, Codec: Codec,
	Apply:       events.NewApply(Codec, apply),
	Begin:       events.NewBegin(Codec, apply),
	Revise:      revise,
	Filters:     []string{"state", "node", "backend", "tags", "autostart", "cpus", "memory_mb"},
	FilterNames: map[string]string{"tag": "tags"},
}

func apply(v *View, event any, e events.Event) bool {
	observed := func(s State) {
		if s == StateStopped {
			v.settle() // what waited for the next start holds: nothing runs that it would differ from
		}
		v.State, v.ObservedAt = s, &e.At
	}
	switch ev := event.(type) {
	case CreateRequested:
		v.configure(ev.Spec)
		v.Node, v.Pending, v.State = ev.Node, Fields{}, StateCreating
		v.Snapshots = []Snapshot{}
	case CreateFailed:
		v.State = StateError
		return true
	case ImportRequested:
		v.configure(ev.Spec)
		v.Node, v.Pending, v.State = ev.Node, Fields{}, StateCreating
		v.Snapshots = []Snapshot{}
	case Imported:
		v.NativeID, v.Accelerator = &ev.NativeID, &ev.Accelerator
		observed(ev.State)
	case ImportFailed:
		v.State = StateError
		return true
	case Created:
		v.NativeID, v.Accelerator = &ev.NativeID, &ev.Accelerator
		observed(StateStopped)
	case StartRequested:
		v.State = StateStarting
	case Started:
		v.settle() // a reboot that nobody saw the stop of
		observed(StateRunning)
	case StartFailed:
		observed(ev.State)
	case StopRequested:
		v.State = StateStopping
	case Stopped:
		observed(StateStopped)
	case StopFailed:
		observed(ev.State)
	case Paused:
		observed(StatePaused)
	case PauseFailed:
		observed(ev.State)
	case Resumed, Reset, Rebooted:
		observed(StateRunning)
	case ResumeFailed:
		observed(ev.State)
	case ResetFailed:
		observed(ev.State)
	case RebootFailed:
		observed(ev.State)
	case Lost:
		v.settle()
		v.Transient = false
		observed(StateError)
	case Updated:
		v.change(ev.Change)
	case Snapshotted:
		v.snapshots(v.tree().With(ev.Taken, e.At))
	case SnapshotFailed:
		observed(ev.State)
	case Restored:
		v.change(ev.Change)
		v.Snapshot = &ev.Name
		observed(ev.State)
	case RestoreFailed:
		observed(ev.State)
	case SnapshotRemoved:
		v.snapshots(v.tree().Without(ev.Name))
	case SnapshotRemoveFailed:
		observed(ev.State)
	case Drifted:
		v.change(ev.Change)
		v.Transient, v.ObservedAt = ev.Transient, &e.At
	case Repaired:
		v.change(ev.Change)
		v.Transient = ev.Transient
		observed(ev.State)
	case RepairFailed:
		observed(ev.State)
	case DeleteRequested:
		v.State = StateDeleting
	case RemoveFailed:
		observed(v.State) // the delete is under way until DeleteFailed
	case DeleteFailed:
		observed(ev.State)
	case Deleted:
		return true
	}
	return false
}

// configure takes a configuration over, field by field.
func (v *View) configure(s Spec) {
	v.Name, v.Backend, v.Description, v.Tags, v.Autostart, v.OnDrift = s.Name, s.Backend, s.Description, s.Tags, s.Autostart, s.OnDrift
	v.Adopted = s.Adopted
	v.CPUs, v.MaxCPUs, v.MemoryMB, v.CPUModel = s.CPUs, s.MaxCPUs, s.MemoryMB, s.CPUModel
	v.Machine, v.Firmware, v.SecureBoot, v.TPM, v.Boot = s.Machine, s.Firmware, s.SecureBoot, s.TPM, s.Boot
	v.Disks, v.Networks, v.Serial, v.VNC, v.Agent, v.RNG = s.Disks, s.Networks, s.Serial, s.VNC, s.Agent, s.RNG
}

// spec is the configuration that the view shows.
func (v *View) spec() Spec {
	return Spec{
		Name: v.Name, Backend: v.Backend, Description: v.Description, Tags: v.Tags, Autostart: v.Autostart, OnDrift: v.OnDrift, Adopted: v.Adopted,
		CPUs: v.CPUs, MaxCPUs: v.MaxCPUs, MemoryMB: v.MemoryMB, CPUModel: v.CPUModel,
		Machine: v.Machine, Firmware: v.Firmware, SecureBoot: v.SecureBoot, TPM: v.TPM, Boot: v.Boot,
		Disks: v.Disks, Networks: v.Networks, Serial: v.Serial, VNC: v.VNC, Agent: v.Agent, RNG: v.RNG,
	}
}

// overlay takes fields over that were recorded. One that cannot be read is left: the decoder of the event has seen that
// it is JSON, and whoever recorded it that it is of its type.
func (v *View) overlay(fields Fields) {
	if next, err := Overlay(v.spec(), fields); err == nil {
		v.configure(next)
	}
}

// change takes over which fields hold now and which at the next start.
func (v *View) change(c Change) {
	v.overlay(c.Changed)
	v.Pending = Fields{}
	maps.Copy(v.Pending, c.Pending)
}

// tree is the snapshots that the view shows.
func (v *View) tree() Snapshots {
	s := Snapshots{All: v.Snapshots}
	if v.Snapshot != nil {
		s.Current = *v.Snapshot
	}
	return s
}

func (v *View) snapshots(s Snapshots) {
	v.Snapshots, v.Snapshot = s.All, nil
	if s.Current != "" {
		v.Snapshot = &s.Current
	}
}

// settle lets what was pending hold.
func (v *View) settle() {
	if len(v.Pending) > 0 {
		v.overlay(v.Pending)
		v.Pending = Fields{}
	}
}
