package vm

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// View is a virtual machine as the API returns it.
type View struct {
	events.Common
	Backend     string         `json:"backend"`
	Node        uuid.UUID      `json:"node"`
	Description string         `json:"description"`
	Tags        []string       `json:"tags"`
	CPUs        int            `json:"cpus"`
	MemoryMB    int64          `json:"memory_mb"`
	CPUModel    string         `json:"cpu_model"`
	Machine     string         `json:"machine"`
	Firmware    string         `json:"firmware"`
	Disks       []Disk         `json:"disks"`
	Networks    []NIC          `json:"networks"`
	Boot        Boot           `json:"boot"`
	CloudInit   *string        `json:"cloud_init"`
	Autostart   bool           `json:"autostart"`
	OnDrift     string         `json:"on_drift"`
	Accelerator *string        `json:"accelerator"`
	Pending     map[string]any `json:"pending"`
	State       State          `json:"state"`
	NativeID    *string        `json:"native_id"`
	HA          *string        `json:"ha"`
	ObservedAt  *time.Time     `json:"observed_at"`
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
	observed := func(s State) { v.State, v.ObservedAt = s, &e.At }
	switch ev := event.(type) {
	case CreateRequested:
		s := ev.Spec
		v.Name, v.Backend, v.Node, v.Description, v.Tags = s.Name, s.Backend, ev.Node, s.Description, s.Tags
		v.CPUs, v.MemoryMB, v.CPUModel, v.Machine, v.Firmware = s.CPUs, s.MemoryMB, s.CPUModel, s.Machine, s.Firmware
		v.Disks, v.Networks, v.Boot, v.Autostart, v.OnDrift = s.Disks, s.Networks, s.Boot, s.Autostart, s.OnDrift
		v.Pending = map[string]any{}
		v.State = StateCreating
	case CreateFailed:
		v.State = StateError
		return true
	case Created:
		v.NativeID, v.Accelerator = &ev.NativeID, &ev.Accelerator
		observed(StateStopped)
	case StartRequested:
		v.State = StateStarting
	case Started:
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
	case Resumed, Reset:
		observed(StateRunning)
	case ResumeFailed:
		observed(ev.State)
	case ResetFailed:
		observed(ev.State)
	case Lost:
		observed(StateError)
	case Updated:
		v.update(ev.UpdateData)
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

func (v *View) update(u UpdateData) {
	if u.Description != nil {
		v.Description = *u.Description
	}
	if u.Tags != nil {
		v.Tags = *u.Tags
	}
	if u.Autostart != nil {
		v.Autostart = *u.Autostart
	}
}

// revise brings back what an update can change.
func revise(current, target json.RawMessage) (*events.Revision, error) {
	var now, then View
	if err := json.Unmarshal(current, &now); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(target, &then); err != nil {
		return nil, err
	}
	var u UpdateData
	if now.Description != then.Description {
		u.Description = &then.Description
	}
	if !slices.Equal(now.Tags, then.Tags) {
		tags := append([]string{}, then.Tags...) // none is an empty array: null would leave them as they are
		u.Tags = &tags
	}
	if now.Autostart != then.Autostart {
		u.Autostart = &then.Autostart
	}
	if u == (UpdateData{}) {
		return nil, nil
	}
	data, err := json.Marshal(u)
	return &events.Revision{Type: "vm.update", Data: data}, err
}
