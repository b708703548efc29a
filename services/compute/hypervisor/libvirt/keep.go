//go:build !no_qemu

package libvirt

import (
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// keep is the old document with all in it that ours says anew: what others put there beyond ours stays, devices too
// unless they are gone. The places of devices are those where the guest knows them, in known, which is what runs if
// anything does.
func keep(ours, old, known *libvirtxml.Domain, gone hypervisor.Devices) *libvirtxml.Domain {
	next := *old
	next.Type, next.Name, next.Description, next.OS, next.CPU, next.Features = ours.Type, ours.Name, ours.Description, ours.OS, ours.CPU, ours.Features
	next.VCPU, next.VCPUs, next.Memory, next.CurrentMemory = ours.VCPU, nil, ours.Memory, nil
	devices := *old.Devices
	next.Devices = &devices
	devices.Controllers, devices.RNGs, devices.TPMs, devices.Videos = ours.Devices.Controllers, ours.Devices.RNGs, ours.Devices.TPMs, ours.Devices.Videos
	devices.Serials, devices.Consoles, devices.MemBalloon = ours.Devices.Serials, nil, ours.Devices.MemBalloon
	devices.Graphics = append(slices.Clone(ours.Devices.Graphics), slices.DeleteFunc(slices.Clone(old.Devices.Graphics), func(g libvirtxml.DomainGraphic) bool { return g.VNC != nil })...)
	devices.Channels = append(slices.Clone(ours.Devices.Channels), slices.DeleteFunc(slices.Clone(old.Devices.Channels), ofTheAgent)...)
	devices.Disks = slices.Clone(ours.Devices.Disks)
	for _, o := range old.Devices.Disks {
		if _, disk := diskFrom(&o); disk && diskIn(ours, o.Target.Dev) == nil &&
			!slices.ContainsFunc(gone.Disks, func(g hypervisor.Disk) bool { return targetDev(g) == o.Target.Dev }) {
			devices.Disks = append(devices.Disks, o)
		}
	}
	devices.Interfaces = slices.Clone(ours.Devices.Interfaces)
	for _, o := range old.Devices.Interfaces {
		if o.MAC != nil && nicIn(ours, o.MAC.Address) == nil &&
			!slices.ContainsFunc(gone.NICs, func(g hypervisor.NIC) bool { return g.MAC == o.MAC.Address }) {
			devices.Interfaces = append(devices.Interfaces, o)
		}
	}
	if chipset(&next) != chipset(known) {
		elsewhere(&devices)
		return &next
	}
	devices.Controllers = controllers(devices.Controllers, known.Devices.Controllers)
	for i := range devices.Disks {
		d := &devices.Disks[i]
		if o := diskIn(known, d.Target.Dev); o != nil && o.Target.Bus == d.Target.Bus {
			d.Address = o.Address
		}
	}
	for i := range devices.Interfaces {
		n := &devices.Interfaces[i]
		if o := nicIn(known, n.MAC.Address); o != nil && o.Model != nil && n.Model != nil && o.Model.Type == n.Model.Type {
			n.Address = o.Address
		}
	}
	if len(devices.RNGs) == 1 && len(known.Devices.RNGs) == 1 {
		devices.RNGs[0].Address = known.Devices.RNGs[0].Address
	}
	if len(devices.Videos) == 1 && len(known.Devices.Videos) == 1 {
		devices.Videos[0].Address = known.Devices.Videos[0].Address
	}
	if b := known.Devices.MemBalloon; b != nil && devices.MemBalloon != nil {
		devices.MemBalloon.Address = b.Address
	}
	return &next
}

func ofTheAgent(c libvirtxml.DomainChannel) bool {
	return c.Target != nil && c.Target.VirtIO != nil && strings.HasPrefix(c.Target.VirtIO.Name, "org.qemu.guest_agent")
}

// elsewhere lets libvirt find new places for what was kept: those it has are of another board.
func elsewhere(d *libvirtxml.DomainDeviceList) {
	if d.MemBalloon != nil {
		d.MemBalloon.Address = nil
	}
	for i := range d.Disks {
		d.Disks[i].Address = nil
	}
	for i := range d.Interfaces {
		d.Interfaces[i].Address = nil
	}
	for i := range d.Hostdevs {
		d.Hostdevs[i].Address = nil
	}
	for i := range d.Filesystems {
		d.Filesystems[i].Address = nil
	}
	for i := range d.Sounds {
		d.Sounds[i].Address = nil
	}
	for i := range d.Watchdogs {
		d.Watchdogs[i].Address = nil
	}
	for i := range d.Channels {
		d.Channels[i].Address = nil
	}
	d.Inputs = nil // those of the board: libvirt adds them
}

// chipset says which of the boards a domain has, of which the places of devices are.
func chipset(d *libvirtxml.Domain) string {
	if d.OS == nil || d.OS.Type == nil {
		return ""
	}
	if strings.Contains(d.OS.Type.Machine, "q35") {
		return "q35"
	}
	return "pc"
}

// controllers are those that are known, and what is new.
func controllers(next, known []libvirtxml.DomainController) []libvirtxml.DomainController {
	all := slices.Clone(known)
	for _, c := range next {
		if !slices.ContainsFunc(known, func(o libvirtxml.DomainController) bool { return o.Type == c.Type }) {
			all = append(all, c)
		}
	}
	return all
}

func diskIn(d *libvirtxml.Domain, dev string) *libvirtxml.DomainDisk {
	i := slices.IndexFunc(d.Devices.Disks, func(o libvirtxml.DomainDisk) bool { return o.Target != nil && o.Target.Dev == dev })
	if i < 0 {
		return nil
	}
	return &d.Devices.Disks[i]
}

func nicIn(d *libvirtxml.Domain, mac string) *libvirtxml.DomainInterface {
	i := slices.IndexFunc(d.Devices.Interfaces, func(o libvirtxml.DomainInterface) bool { return o.MAC != nil && o.MAC.Address == mac })
	if i < 0 {
		return nil
	}
	return &d.Devices.Interfaces[i]
}
