//go:build !no_qemu

package libvirt

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"horcrux/pkg/events/vm"
	"horcrux/services/compute/hypervisor"
)

// disks come, go, grow and are limited. The ISO is none of them.
func (a *adjustment) disks() error {
	for i := range a.now.Devices.Disks {
		d := &a.now.Devices.Disks[i]
		if d.Target == nil || !slices.ContainsFunc(a.spec.Gone.Disks, func(o hypervisor.Disk) bool { return targetDev(o) == d.Target.Dev }) {
			continue
		}
		if err := a.detach(d, func(now *libvirtxml.Domain) bool { return diskIn(now, d.Target.Dev) != nil }); err != nil {
			return err
		}
	}
	for _, disk := range a.spec.Disks {
		there := diskIn(a.now, targetDev(disk))
		if there == nil {
			if err := a.attachDisk(disk); err != nil {
				return err
			}
			continue
		}
		if seen, _ := diskFrom(there); seen.Path != disk.Path {
			return fmt.Errorf("%w: %s is another disk", hypervisor.ErrConflict, there.Target.Dev)
		}
		if limitsOf(there.IOTune) != disk.Limits {
			if err := a.limit(disk); err != nil {
				return err
			}
		}
		if err := a.grow(disk); err != nil {
			return err
		}
	}
	return nil
}

func (a *adjustment) attachDisk(disk hypervisor.Disk) error {
	scsi := func(c libvirtxml.DomainController) bool { return c.Type == "scsi" }
	if disk.Bus == "scsi" && !slices.ContainsFunc(a.now.Devices.Controllers, scsi) {
		c := scsiController()
		if err := a.attach(&c); err != nil {
			return err
		}
		a.now.Devices.Controllers = append(a.now.Devices.Controllers, c)
	}
	d := diskOf(disk)
	d.Boot = nil // what a start goes by; a running guest is past it
	return a.attach(&d)
}

func limitsOf(t *libvirtxml.DomainDiskIOTune) hypervisor.Limits {
	if t == nil {
		return hypervisor.Limits{}
	}
	return hypervisor.Limits{
		ReadIOPS: int64(t.ReadIopsSec), WriteIOPS: int64(t.WriteIopsSec),
		ReadBytes: int64(t.ReadBytesSec), WriteBytes: int64(t.WriteBytesSec),
	}
}

func (a *adjustment) limit(disk hypervisor.Disk) error {
	value := func(name string, n int64) golibvirt.TypedParam {
		return golibvirt.TypedParam{Field: name, Value: *golibvirt.NewTypedParamValueUllong(uint64(n))}
	}
	l := disk.Limits
	return a.do(func(lv *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return lv.DomainSetBlockIOTune(dom, targetDev(disk), []golibvirt.TypedParam{
			value("read_iops_sec", l.ReadIOPS), value("write_iops_sec", l.WriteIOPS),
			value("read_bytes_sec", l.ReadBytes), value("write_bytes_sec", l.WriteBytes),
		}, uint32(golibvirt.DomainAffectLive))
	})
}

// grow tells QEMU, which has the file and grows it itself.
func (a *adjustment) grow(disk hypervisor.Disk) error {
	if disk.SizeBytes == 0 {
		return nil
	}
	size, err := exchange(a.ctx, a.s, look, func(l *golibvirt.Libvirt) (uint64, error) {
		_, capacity, _, err := l.DomainGetBlockInfo(handle(a.spec.ID), targetDev(disk), 0)
		return capacity, err
	})
	if err != nil || size >= uint64(disk.SizeBytes) {
		return err
	}
	return a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return l.DomainBlockResize(dom, targetDev(disk), uint64(disk.SizeBytes), golibvirt.DomainBlockResizeBytes)
	})
}

// nics come, go, and their links are up or down.
func (a *adjustment) nics() error {
	macs := map[string]hypervisor.NIC{}
	for i, nic := range a.spec.NICs {
		nic.MAC = cmp.Or(nic.MAC, vm.DerivedMAC(a.spec.ID, strconv.Itoa(i)))
		macs[nic.MAC] = nic
	}
	for i := range a.now.Devices.Interfaces {
		n := &a.now.Devices.Interfaces[i]
		if n.MAC == nil {
			continue
		}
		wanted, stays := macs[n.MAC.Address]
		switch gone := slices.ContainsFunc(a.spec.Gone.NICs, func(o hypervisor.NIC) bool { return o.MAC == n.MAC.Address }); {
		case !stays && !gone:
			continue // somebody else's
		case !stays:
			if err := a.detach(n, func(now *libvirtxml.Domain) bool { return nicIn(now, n.MAC.Address) != nil }); err != nil {
				return err
			}
			continue
		}
		delete(macs, n.MAC.Address)
		if down := n.Link != nil && n.Link.State == "down"; down != wanted.LinkDown {
			device, err := a.recorded(n)
			if err != nil {
				return err
			}
			device.Link = &libvirtxml.DomainInterfaceLink{State: "up"}
			if wanted.LinkDown {
				device.Link.State = "down"
			}
			if err := a.update(device); err != nil {
				return err
			}
		}
	}
	for _, nic := range a.spec.NICs {
		if _, comes := macs[nic.MAC]; !comes {
			continue
		}
		n := nicOf(nic)
		n.Boot = nil
		if err := a.attach(&n); err != nil {
			return err
		}
	}
	return nil
}

// recorded is a NIC that runs as the configuration has it: of one on a network that is a bridge, what runs tells the
// bridge alone.
func (a *adjustment) recorded(n *libvirtxml.DomainInterface) (*libvirtxml.DomainInterface, error) {
	next, err := domainXML(a.ctx, a.s, a.spec.ID, golibvirt.DomainXMLInactive)
	if err != nil {
		return nil, err
	}
	device := *n
	if o := nicIn(next, n.MAC.Address); o != nil {
		device = *o
		device.Address = n.Address
	}
	return &device, nil
}
