//go:build !no_qemu

package libvirt

import (
	"slices"
	"strings"

	"libvirt.org/go/libvirtxml"
)

// keep lets a new configuration have what the old one has beyond ours: devices of kinds that we never make, what was set
// by hand. The places of devices are those where the guest knows them, in known, which is what runs if anything does.
func keep(next, old, known *libvirtxml.Domain) {
	next.Metadata = old.Metadata // our mark, and what others put beside it
	next.Devices.Hostdevs, next.Devices.Filesystems, next.Devices.Sounds = old.Devices.Hostdevs, old.Devices.Filesystems, old.Devices.Sounds
	next.Devices.Inputs, next.Devices.RedirDevs, next.Devices.Watchdogs = old.Devices.Inputs, old.Devices.RedirDevs, old.Devices.Watchdogs
	next.Devices.VSock, next.Devices.Shmems, next.Devices.Memorydevs = old.Devices.VSock, old.Devices.Shmems, old.Devices.Memorydevs
	next.Devices.Emulator, next.Devices.MemBalloon = old.Devices.Emulator, old.Devices.MemBalloon
	if chipset(next) != chipset(known) {
		elsewhere(next.Devices)
		return
	}
	next.Devices.Controllers = controllers(next.Devices.Controllers, known.Devices.Controllers)
	for i := range next.Devices.Disks {
		d := &next.Devices.Disks[i]
		if o := diskIn(known, d.Target.Dev); o != nil && o.Target.Bus == d.Target.Bus {
			d.Address = o.Address
		}
	}
	for i := range next.Devices.Interfaces {
		n := &next.Devices.Interfaces[i]
		if o := nicIn(known, n.MAC.Address); o != nil && o.Model != nil && o.Model.Type == n.Model.Type {
			n.Address = o.Address
		}
	}
	if len(next.Devices.RNGs) == 1 && len(known.Devices.RNGs) == 1 {
		next.Devices.RNGs[0].Address = known.Devices.RNGs[0].Address
	}
	if len(next.Devices.Videos) == 1 && len(known.Devices.Videos) == 1 {
		next.Devices.Videos[0].Address = known.Devices.Videos[0].Address
	}
}

// elsewhere lets libvirt find new places for what was kept: those it has are of another board.
func elsewhere(d *libvirtxml.DomainDeviceList) {
	if d.MemBalloon != nil {
		d.MemBalloon.Address = nil
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
