//go:build !no_qemu

package libvirt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// volume makes a disk's file.
func volume(t *testing.T, index int, size int64) hypervisor.Disk {
	t.Helper()
	path := filepath.Join(shortDir(t), fmt.Sprintf("%d.raw", index))
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Disk{Index: index, Type: "file", Path: path, Format: "raw", SizeBytes: size, Bus: "virtio", Cache: "default", Discard: "unmap"}
}

// sees reads a domain's document as libvirt has it, and the sizes of its disks as QEMU has them.
func sees(l func() *golibvirt.Libvirt) func(*testing.T, uuid.UUID, bool) hypervisor.Spec {
	return func(t *testing.T, id uuid.UUID, running bool) hypervisor.Spec {
		t.Helper()
		flags := golibvirt.DomainXMLInactive
		if running {
			flags = 0
		}
		text, err := l().DomainGetXMLDesc(handle(id), flags)
		if err != nil {
			t.Fatal(err)
		}
		var d libvirtxml.Domain
		if err := d.Unmarshal(text); err != nil {
			t.Fatal(err)
		}
		out := hypervisor.Spec{CPUs: int(d.VCPU.Value), MemoryMB: int64(d.Memory.Value >> 10)}
		if d.VCPU.Current > 0 {
			out.CPUs = int(d.VCPU.Current)
		}
		for _, disk := range d.Devices.Disks {
			o := hypervisor.Disk{
				Index: int(disk.Target.Dev[2] - 'a'), Type: "file", Path: disk.Source.File.File, Format: disk.Driver.Type,
				Bus: disk.Target.Bus, Cache: "default", Discard: disk.Driver.Discard,
			}
			if t := disk.IOTune; t != nil {
				o.Limits = hypervisor.Limits{
					ReadIOPS: int64(t.ReadIopsSec), WriteIOPS: int64(t.WriteIopsSec), ReadBytes: int64(t.ReadBytesSec), WriteBytes: int64(t.WriteBytesSec),
				}
			}
			_, size, _, err := l().DomainGetBlockInfo(handle(id), o.Path, 0)
			if err != nil && running {
				t.Fatal(err)
			}
			o.SizeBytes = int64(size)
			if !running {
				info, err := os.Stat(o.Path)
				if err != nil {
					t.Fatal(err)
				}
				o.SizeBytes = info.Size()
			}
			out.Disks = append(out.Disks, o)
		}
		for _, nic := range d.Devices.Interfaces {
			out.NICs = append(out.NICs, hypervisor.NIC{
				Network: nic.Source.Network.Network, Model: nic.Model.Type, MAC: nic.MAC.Address, LinkDown: nic.Link != nil && nic.Link.State == "down",
			})
		}
		return out
	}
}
