//go:build !no_qemu

package libvirt

import (
	"slices"

	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// amend changes of a document that others wrote what a spec says otherwise, and nothing else.
func amend(d *libvirtxml.Domain, spec hypervisor.Spec) {
	is := specOf(d)
	d.Description = spec.Description
	if is.CPUs != spec.CPUs || is.MaxCPUs != spec.MaxCPUs {
		v := vcpu(spec)
		v.Placement, v.CPUSet = d.VCPU.Placement, d.VCPU.CPUSet
		d.VCPU, d.VCPUs = v, nil
	}
	if is.MemoryMB != spec.MemoryMB {
		d.Memory = &libvirtxml.DomainMemory{Value: uint(spec.MemoryMB), Unit: "MiB"}
		d.CurrentMemory = nil
	}
	d.Devices.Disks = slices.DeleteFunc(d.Devices.Disks, func(o libvirtxml.DomainDisk) bool {
		_, disk := diskFrom(&o)
		return disk && slices.ContainsFunc(spec.Gone.Disks, func(w hypervisor.Disk) bool { return targetDev(w) == o.Target.Dev })
	})
	for _, w := range spec.Disks {
		o := diskIn(d, targetDev(w))
		if o == nil {
			d.Devices.Disks = append(d.Devices.Disks, diskOf(w))
			continue
		}
		if limitsOf(o.IOTune) != w.Limits {
			o.IOTune = diskOf(w).IOTune
		}
	}
	d.Devices.Interfaces = slices.DeleteFunc(d.Devices.Interfaces, func(o libvirtxml.DomainInterface) bool {
		return o.MAC != nil && slices.ContainsFunc(spec.Gone.NICs, func(w hypervisor.NIC) bool { return w.MAC == o.MAC.Address })
	})
	for _, w := range spec.NICs {
		o := nicIn(d, w.MAC)
		if o == nil {
			d.Devices.Interfaces = append(d.Devices.Interfaces, nicOf(w))
			continue
		}
		if was, _ := nicFrom(o); was.LinkDown != w.LinkDown {
			o.Link = nicOf(w).Link
		}
	}
}
