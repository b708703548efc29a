//go:build !no_qemu

package libvirt

import (
	"cmp"
	"fmt"
	"strconv"

	"libvirt.org/go/libvirtxml"

	"horcrux/pkg/events/vm"
	"horcrux/services/compute/hypervisor"
)

// hotplugPorts are the PCI Express ports of a q35 machine, each of which takes one device, also while it runs: a disk or
// NIC that is there at the start has one of them too.
const hotplugPorts = 16

// devices of a spec. What a server does not need is left out: sound, USB.
func devices(spec hypervisor.Spec, consoleDir string) *libvirtxml.DomainDeviceList {
	list := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		// Without a period the balloon tells nothing of the guest's own view of its memory.
		MemBalloon: &libvirtxml.DomainMemBalloon{Model: "virtio", Stats: &libvirtxml.DomainMemBalloonStats{Period: 10}},
	}
	if spec.Machine == "q35" {
		list.Controllers = append(list.Controllers, libvirtxml.DomainController{Type: "pci", Index: new(uint), Model: "pcie-root"})
		for n := range uint(hotplugPorts) {
			list.Controllers = append(list.Controllers, libvirtxml.DomainController{Type: "pci", Index: new(n + 1), Model: "pcie-root-port"})
		}
	}
	if spec.Serial {
		list.Serials = []libvirtxml.DomainSerial{{
			Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
			Target: &libvirtxml.DomainSerialTarget{Port: new(uint)},
		}}
		if consoleDir != "" {
			list.Serials[0].Log = &libvirtxml.DomainChardevLog{File: consoleLog(consoleDir, spec.ID), Append: "on"}
		}
	}
	if spec.RNG {
		list.RNGs = []libvirtxml.DomainRNG{{
			Model: "virtio",
			Backend: &libvirtxml.DomainRNGBackend{
				Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"},
			},
		}}
	}
	if spec.VNC {
		list.Graphics = []libvirtxml.DomainGraphic{{VNC: screen(spec)}}
		list.Videos = []libvirtxml.DomainVideo{{Model: libvirtxml.DomainVideoModel{Type: "vga"}}}
	}
	if spec.Agent {
		list.Channels = []libvirtxml.DomainChannel{{
			Source: &libvirtxml.DomainChardevSource{UNIX: &libvirtxml.DomainChardevSourceUNIX{}},
			Target: &libvirtxml.DomainChannelTarget{VirtIO: &libvirtxml.DomainChannelTargetVirtIO{Name: "org.qemu.guest_agent.0"}},
		}}
	}
	if spec.TPM {
		list.TPMs = []libvirtxml.DomainTPM{{
			Model: "tpm-crb", Backend: &libvirtxml.DomainTPMBackend{Emulator: &libvirtxml.DomainTPMBackendEmulator{Version: "2.0"}},
		}}
	}
	last := 0 // boot order so far
	scsi := false
	for _, disk := range spec.Disks {
		last = max(last, disk.BootOrder)
		scsi = scsi || disk.Bus == "scsi"
		list.Disks = append(list.Disks, diskOf(disk))
	}
	for i, nic := range spec.NICs {
		last = max(last, nic.BootOrder)
		nic.MAC = cmp.Or(nic.MAC, vm.DerivedMAC(spec.ID, strconv.Itoa(i)))
		list.Interfaces = append(list.Interfaces, nicOf(nic))
	}
	if scsi {
		list.Controllers = append(list.Controllers, scsiController())
	}
	if spec.ISO != "" {
		// After the disks: an installed system boots instead of its installer, an empty disk falls through to it.
		list.Disks = append(list.Disks, libvirtxml.DomainDisk{
			Device: "cdrom", ReadOnly: &libvirtxml.DomainDiskReadOnly{}, Target: &libvirtxml.DomainDiskTarget{Dev: isoTarget, Bus: "sata"},
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
			Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: spec.ISO}},
			Boot:   bootOrder(last + 1),
		})
	}
	return list
}

// isoTarget is the place of the ISO among the disks of SCSI and SATA, whose own begin after it.
const isoTarget = "sda"

// targetDev is the place of a disk, by which libvirt knows it.
func targetDev(d hypervisor.Disk) string {
	if d.Target != "" {
		return d.Target
	}
	if d.Bus == "virtio" {
		return "vd" + letters(d.Index)
	}
	return "sd" + letters(d.Index+1)
}

func scsiController() libvirtxml.DomainController {
	return libvirtxml.DomainController{Type: "scsi", Index: new(uint), Model: "virtio-scsi"}
}

// screen is on a socket that libvirt names and whose folder only QEMU and root enter.
func screen(spec hypervisor.Spec) *libvirtxml.DomainGraphicVNC {
	return &libvirtxml.DomainGraphicVNC{
		Passwd:    spec.VNCPassword,
		Listeners: []libvirtxml.DomainGraphicListener{{Socket: &libvirtxml.DomainGraphicListenerSocket{}}},
	}
}

func diskOf(disk hypervisor.Disk) libvirtxml.DomainDisk {
	source := &libvirtxml.DomainDiskSource{}
	if disk.Type == "block" {
		source.Block = &libvirtxml.DomainDiskSourceBlock{Dev: disk.Path}
	} else {
		source.File = &libvirtxml.DomainDiskSourceFile{File: disk.Path}
	}
	d := libvirtxml.DomainDisk{
		Device: "disk", Source: source, Target: &libvirtxml.DomainDiskTarget{Dev: targetDev(disk), Bus: disk.Bus},
		Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: disk.Format, Discard: "unmap"},
		Boot:   bootOrder(disk.BootOrder),
	}
	if disk.Cache != "default" {
		d.Driver.Cache = disk.Cache
	}
	if disk.Discard != "" {
		d.Driver.Discard = disk.Discard
	}
	if l := disk.Limits; l != (hypervisor.Limits{}) {
		d.IOTune = &libvirtxml.DomainDiskIOTune{
			ReadIopsSec: uint64(l.ReadIOPS), WriteIopsSec: uint64(l.WriteIOPS),
			ReadBytesSec: uint64(l.ReadBytes), WriteBytesSec: uint64(l.WriteBytes),
		}
	}
	return d
}

func nicOf(nic hypervisor.NIC) libvirtxml.DomainInterface {
	i := libvirtxml.DomainInterface{
		MAC:   &libvirtxml.DomainInterfaceMAC{Address: nic.MAC},
		Model: &libvirtxml.DomainInterfaceModel{Type: nic.Model},
		Source: &libvirtxml.DomainInterfaceSource{
			Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: nic.Network},
		},
		Boot: bootOrder(nic.BootOrder),
	}
	if nic.MTU > 0 {
		i.MTU = &libvirtxml.DomainInterfaceMTU{Size: uint(nic.MTU)}
	}
	if nic.LinkDown {
		i.Link = &libvirtxml.DomainInterfaceLink{State: "down"}
	}
	return i
}

func bootOrder(n int) *libvirtxml.DomainDeviceBoot {
	if n == 0 {
		return nil
	}
	return &libvirtxml.DomainDeviceBoot{Order: uint(n)}
}

// marshaller is a device.
type marshaller interface{ Marshal() (string, error) }

func deviceText(d marshaller) (string, error) {
	text, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	return text, nil
}
