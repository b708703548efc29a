package vm

import (
	"encoding/json"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// revise brings back what an update can change. Disks and NICs that came or went since stay so: what was on them is not
// in the log.
func revise(current, target json.RawMessage) (*events.Revision, error) {
	var now, then View
	if err := json.Unmarshal(current, &now); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(target, &then); err != nil {
		return nil, err
	}
	wanted, err := Overlay(now.spec(), now.Pending)
	if err != nil {
		return nil, err
	}
	goal, err := Overlay(then.spec(), then.Pending)
	if err != nil {
		return nil, err
	}
	u := difference(wanted, goal)
	if reflect.DeepEqual(u, UpdateData{}) {
		return nil, nil
	}
	data, err := json.Marshal(u)
	return &events.Revision{Type: "vm.update", Data: data}, err
}

// difference is the update that leads from one configuration to another.
func difference(now, then Spec) UpdateData {
	u := UpdateData{
		Description: changed(now.Description, then.Description), CPUs: changed(now.CPUs, then.CPUs), MaxCPUs: changed(now.MaxCPUs, then.MaxCPUs),
		MemoryMB: changed(now.MemoryMB, then.MemoryMB), CPUModel: changed(now.CPUModel, then.CPUModel), Machine: changed(now.Machine, then.Machine),
		Firmware: changed(now.Firmware, then.Firmware), SecureBoot: changed(now.SecureBoot, then.SecureBoot), TPM: changed(now.TPM, then.TPM),
		Serial: changed(now.Serial, then.Serial), Agent: changed(now.Agent, then.Agent), RNG: changed(now.RNG, then.RNG),
		Autostart: changed(now.Autostart, then.Autostart), OnDrift: changed(now.OnDrift, then.OnDrift),
	}
	if !slices.Equal(now.Tags, then.Tags) {
		tags := append([]string{}, then.Tags...) // none is an empty array: null would leave them as they are
		u.Tags = &tags
	}
	if !reflect.DeepEqual(now.Boot, then.Boot) {
		u.Boot = &then.Boot
	}
	if !reflect.DeepEqual(now.VNC, then.VNC) {
		password := uuid.Nil
		if then.VNC.Password != nil {
			password = *then.VNC.Password
		}
		u.VNC = &VNCUpdate{Enabled: &then.VNC.Enabled, Password: &password}
	}
	for _, d := range now.Disks {
		i := slices.IndexFunc(then.Disks, func(o Disk) bool { return o.Name == d.Name && o.VolumeID == d.VolumeID })
		if i < 0 {
			continue
		}
		o := then.Disks[i]
		c := DiskUpdate{
			Name: d.Name, Bus: changed(d.Bus, o.Bus), BootOrder: changed(number(d.BootOrder), number(o.BootOrder)),
			Cache: changed(d.Cache, o.Cache), Discard: changed(d.Discard, o.Discard), Limits: changed(d.Limits, o.Limits),
		}
		if c != (DiskUpdate{Name: d.Name}) {
			u.Disks = append(u.Disks, c)
		}
	}
	for _, n := range now.Networks {
		i := slices.IndexFunc(then.Networks, func(o NIC) bool { return o.Name == n.Name })
		if i < 0 {
			continue
		}
		o := then.Networks[i]
		c := NICUpdate{
			Name: n.Name, Network: changed(n.Network, o.Network), Model: changed(n.Model, o.Model), MTU: changed(number(n.MTU), number(o.MTU)),
			Link: changed(n.Link, o.Link), BootOrder: changed(number(n.BootOrder), number(o.BootOrder)),
		}
		if n.MAC != nil && o.MAC != nil {
			c.MAC = changed(*n.MAC, *o.MAC)
		}
		if c != (NICUpdate{Name: n.Name}) {
			u.Networks = append(u.Networks, c)
		}
	}
	return u
}

// changed is the value to come where it is not the one that is there.
func changed[T comparable](now, then T) *T {
	if now == then {
		return nil
	}
	return &then
}

// number is 0 for none.
func number(p *int) int {
	if p == nil {
		return 0
	}
	return *p
}
