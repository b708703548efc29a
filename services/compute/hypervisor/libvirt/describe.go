//go:build !no_qemu

package libvirt

import (
	"context"
	"fmt"
	"hash/fnv"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// Adopt implements hypervisor.Driver. Metadata is not the guest's: one that runs does not notice.
func (d *Driver) Adopt(ctx context.Context, id uuid.UUID) error {
	set := func(impact golibvirt.DomainModificationImpact) error {
		return d.do(ctx, func(l *golibvirt.Libvirt) error {
			return l.DomainSetMetadata(handle(id), int32(golibvirt.DomainMetadataElement),
				golibvirt.OptString{`<domain/>`}, golibvirt.OptString{"horcrux"}, golibvirt.OptString{namespace}, impact)
		})
	}
	err := set(golibvirt.DomainAffectLive | golibvirt.DomainAffectConfig)
	if refused(err) { // it does not run; what has no configuration beyond its life cannot be adopted
		err = set(golibvirt.DomainAffectConfig)
	}
	if err != nil {
		return fmt.Errorf("adopt domain %s: %w", id, err)
	}
	if s := d.live(); s != nil {
		s.marks.forget(id)
	}
	return nil
}

// Describe implements hypervisor.Driver.
func (d *Driver) Describe(ctx context.Context, id uuid.UUID, seen uint64) (hypervisor.Description, error) {
	out, err := d.describe(ctx, id, seen)
	if err != nil {
		return hypervisor.Description{}, fmt.Errorf("describe domain %s: %w", id, err)
	}
	return out, nil
}

func (d *Driver) describe(ctx context.Context, id uuid.UUID, seen uint64) (out hypervisor.Description, err error) {
	s, err := d.session(ctx)
	if err != nil {
		return out, err
	}
	if s.glances.worth(id, seen) {
		now, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (documents, error) {
			running, err := l.DomainGetXMLDesc(handle(id), 0)
			if err != nil {
				return documents{}, err
			}
			next, err := l.DomainGetXMLDesc(handle(id), golibvirt.DomainXMLInactive)
			return hashed(running, next), err
		})
		if err != nil {
			return out, err
		}
		if s.glances.holds(id, seen, now) {
			out.Version = seen
			return out, nil
		}
	}
	remember := s.glances.begin(id)
	type whole struct {
		dom           hypervisor.Domain
		persistent    int32
		running, next string
	}
	docs, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (docs whole, err error) {
		if docs.dom, err = observe(l, id); err != nil {
			return docs, err
		}
		if docs.dom.Managed, err = s.marks.of(l, id); err != nil {
			return docs, err
		}
		on, err := l.DomainGetAutostart(handle(id))
		if err != nil {
			return docs, err
		}
		docs.dom.Autostart = on != 0
		if docs.persistent, err = l.DomainIsPersistent(handle(id)); err != nil {
			return docs, err
		}
		if active(docs.dom.State) {
			if docs.running, err = l.DomainGetXMLDesc(handle(id), 0); err != nil {
				return docs, err
			}
		}
		docs.next, err = l.DomainGetXMLDesc(handle(id), golibvirt.DomainXMLInactive)
		return docs, err
	})
	if err != nil {
		return out, err
	}
	out.Domain, out.Transient = docs.dom, docs.persistent == 0
	out.Version = version(docs.running, docs.next, docs.dom.Autostart, out.Transient)
	remember(out.Version, docs.running, docs.next)
	if out.Version == seen {
		return out, nil
	}
	next, err := parseDomain(docs.next)
	if err != nil {
		return out, err
	}
	out.Next = specOf(next)
	out.Next.Autostart = docs.dom.Autostart
	if docs.running != "" {
		running, err := parseDomain(docs.running)
		if err != nil {
			return out, err
		}
		spec := specOf(running)
		out.Running = &spec
	}
	return out, nil
}

// version tells documents apart. 0 stands for none.
func version(running, next string, autostart, transient bool) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d %t %t ", len(running), autostart, transient)
	h.Write([]byte(running))
	h.Write([]byte(next))
	return max(h.Sum64(), 1)
}

// specOf is what a document says, in the terms of a spec.
func specOf(d *libvirtxml.Domain) hypervisor.Spec {
	s := hypervisor.Spec{Name: d.Name, Description: d.Description, Firmware: "bios"}
	if id, err := uuid.Parse(d.UUID); err == nil {
		s.ID = id
	}
	if v := d.VCPU; v != nil {
		s.CPUs, s.MaxCPUs = int(v.Value), int(v.Value)
		if v.Current > 0 {
			s.CPUs = int(v.Current)
		}
	}
	if m := d.Memory; m != nil {
		s.MemoryMB = mebibytes(uint64(m.Value), m.Unit)
	}
	if c := d.CPU; c != nil {
		s.CPUModel = c.Mode
		if c.Model != nil && c.Mode == "custom" {
			s.CPUModel = c.Model.Value
		}
	}
	if o := d.OS; o != nil {
		s.Machine = chipset(d)
		s.Kernel, s.Initrd, s.Cmdline = o.Kernel, o.Initrd, o.Cmdline
		if o.Firmware == "efi" || o.Loader != nil && o.Loader.Type == "pflash" {
			s.Firmware = "uefi"
		}
		if o.FirmwareInfo != nil {
			for _, f := range o.FirmwareInfo.Features {
				s.SecureBoot = s.SecureBoot || f.Name == "secure-boot" && f.Enabled == "yes"
			}
		}
		s.SecureBoot = s.SecureBoot || o.Loader != nil && o.Loader.Secure == "yes"
	}
	s.Serial, s.RNG, s.TPM = len(d.Devices.Serials) > 0, len(d.Devices.RNGs) > 0, len(d.Devices.TPMs) > 0
	for _, g := range d.Devices.Graphics {
		s.VNC = s.VNC || g.VNC != nil
	}
	for _, c := range d.Devices.Channels {
		s.Agent = s.Agent || ofTheAgent(c)
	}
	for i := range d.Devices.Disks {
		if disk, ok := diskFrom(&d.Devices.Disks[i]); ok {
			s.Disks = append(s.Disks, disk)
		} else if o := &d.Devices.Disks[i]; o.Device == "cdrom" && o.Source != nil && o.Source.File != nil {
			s.ISO = o.Source.File.File
		}
	}
	for i := range d.Devices.Interfaces {
		if nic, ok := nicFrom(&d.Devices.Interfaces[i]); ok {
			s.NICs = append(s.NICs, nic)
		}
	}
	return s
}

// mebibytes in a number of a unit of libvirt's.
func mebibytes(n uint64, unit string) int64 {
	switch unit {
	case "b", "bytes":
		return int64(n >> 20)
	case "MiB", "M":
		return int64(n)
	case "GiB", "G":
		return int64(n << 10)
	}
	return int64(n >> 10) // KiB, the default and what libvirt answers with
}

// diskFrom says what a disk is, false for what is none: a cdrom or a floppy.
func diskFrom(d *libvirtxml.DomainDisk) (out hypervisor.Disk, ok bool) {
	if d.Device != "disk" && d.Device != "" || d.Target == nil {
		return out, false
	}
	out = hypervisor.Disk{Index: indexOf(d.Target.Dev, d.Target.Bus), Target: d.Target.Dev, Bus: d.Target.Bus, Cache: "default", Discard: "ignore", Limits: limitsOf(d.IOTune)}
	if src := d.Source; src != nil {
		switch {
		case src.File != nil:
			out.Type, out.Path = "file", src.File.File
		case src.Block != nil:
			out.Type, out.Path = "block", src.Block.Dev
		}
	}
	if r := d.Driver; r != nil {
		out.Format = r.Type
		if r.Cache != "" {
			out.Cache = r.Cache
		}
		if r.Discard != "" {
			out.Discard = r.Discard
		}
	}
	if d.Boot != nil {
		out.BootOrder = int(d.Boot.Order)
	}
	return out, true
}

// indexOf reads the place of a disk, as targetDev makes it.
func indexOf(dev, bus string) int {
	if len(dev) < 3 {
		return 0
	}
	n := 0
	for _, r := range dev[2:] {
		if r < 'a' || r > 'z' {
			return 0
		}
		n = n*26 + int(r-'a') + 1
	}
	if n--; bus != "virtio" {
		n-- // after the ISO's
	}
	return n
}

func nicFrom(i *libvirtxml.DomainInterface) (out hypervisor.NIC, ok bool) {
	if i.MAC == nil {
		return out, false
	}
	out.MAC = i.MAC.Address
	if src := i.Source; src != nil {
		switch {
		case src.Network != nil:
			out.Network = src.Network.Network
		case src.Bridge != nil:
			out.Network = src.Bridge.Bridge
		}
	}
	if i.Model != nil {
		out.Model = i.Model.Type
	}
	if i.MTU != nil {
		out.MTU = int(i.MTU.Size)
	}
	if i.Boot != nil {
		out.BootOrder = int(i.Boot.Order)
	}
	out.LinkDown = i.Link != nil && i.Link.State == "down"
	return out, true
}
