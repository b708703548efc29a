//go:build !no_qemu

package libvirt

import (
	"crypto/sha256"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// namespace of our mark in a domain's metadata.
const namespace = "urn:horcrux:domain:1"

const mark = `<horcrux:domain xmlns:horcrux="` + namespace + `"/>`

// arch is the architecture of guests: the node's own.
var arch = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64"}[runtime.GOARCH]

var domainType = map[hypervisor.Accelerator]string{hypervisor.KVM: "kvm", hypervisor.TCG: "qemu"}

// document is the domain XML of a spec. It fails with ErrInvalid.
func document(spec hypervisor.Spec, kind, consoleDir string) (string, error) {
	if err := check(spec); err != nil {
		return "", fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	d := &libvirtxml.Domain{
		Type:        domainType[spec.Accelerator],
		Name:        spec.Name,
		UUID:        spec.ID.String(),
		Description: spec.Description,
		Metadata:    &libvirtxml.DomainMetadata{XML: mark},
		Memory:      &libvirtxml.DomainMemory{Value: uint(spec.MemoryMB), Unit: "MiB"},
		VCPU:        &libvirtxml.DomainVCPU{Value: uint(spec.CPUs)},
		CPU:         cpu(spec),
		OS: &libvirtxml.DomainOS{
			Type:   &libvirtxml.DomainOSType{Arch: arch, Machine: spec.Machine, Type: "hvm"},
			Kernel: spec.Kernel, Initrd: spec.Initrd, Cmdline: spec.Cmdline,
		},
		Features: &libvirtxml.DomainFeatureList{
			ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{},
		},
		Clock:      &libvirtxml.DomainClock{Offset: "utc"},
		OnPoweroff: "destroy", OnReboot: "restart", OnCrash: "destroy",
		Devices: devices(spec, consoleDir),
	}
	if spec.Firmware == "uefi" {
		d.OS.Firmware = "efi"
	}
	if kind == "test" { // it has machines of its own and no real ones
		d.Type, d.CPU, d.OS.Firmware = "test", nil, ""
		d.OS.Type.Machine, d.OS.Type.Arch = "", "i686"
	}
	text, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	return text, nil
}

func check(spec hypervisor.Spec) error {
	switch {
	case spec.ID == uuid.Nil:
		return fmt.Errorf("no id")
	case spec.Name == "":
		return fmt.Errorf("no name")
	case spec.CPUs < 1:
		return fmt.Errorf("%d CPUs", spec.CPUs)
	case spec.MemoryMB < 1:
		return fmt.Errorf("%d MiB of memory", spec.MemoryMB)
	case domainType[spec.Accelerator] == "":
		return fmt.Errorf("accelerator %q", spec.Accelerator)
	case spec.Firmware != "" && spec.Firmware != "bios" && spec.Firmware != "uefi":
		return fmt.Errorf("firmware %q", spec.Firmware)
	}
	texts := []string{spec.Name, spec.CPUModel, spec.Machine, spec.Kernel, spec.Initrd, spec.Cmdline, spec.ISO}
	for _, disk := range spec.Disks {
		texts = append(texts, disk.Path)
	}
	for _, nic := range spec.NICs {
		texts = append(texts, nic.Network, nic.Model, nic.MAC)
	}
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.ContainsFunc(text, unsayable) {
			return fmt.Errorf("%q cannot be said in XML", text)
		}
	}
	for _, path := range []string{spec.Kernel, spec.Initrd, spec.ISO} {
		if path != "" && !filepath.IsAbs(path) {
			return fmt.Errorf("path %q is not absolute", path)
		}
	}
	for i, disk := range spec.Disks {
		switch {
		case disk.Type != "file" && disk.Type != "block":
			return fmt.Errorf("disk %d: type %q", i, disk.Type)
		case !filepath.IsAbs(disk.Path):
			return fmt.Errorf("disk %d: path %q is not absolute", i, disk.Path)
		case disk.Format != "raw" && disk.Format != "qcow2":
			return fmt.Errorf("disk %d: format %q", i, disk.Format)
		case disk.Bus != "virtio" && disk.Bus != "scsi" && disk.Bus != "sata":
			return fmt.Errorf("disk %d: bus %q", i, disk.Bus)
		}
	}
	return nil
}

// unsayable runes are not in XML, escaped or not. The encoder would put another in their place, which harms a
// description as little as it would a path much.
func unsayable(r rune) bool {
	return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xFFFE || r == 0xFFFF
}

// cpu model. The modes that mirror the host need KVM; without it they mean all that the emulator can do, since what
// libvirt would give instead (qemu64) is too old for current distributions.
func cpu(spec hypervisor.Spec) *libvirtxml.DomainCPU {
	switch model := spec.CPUModel; model {
	case "", "host-model", "host-passthrough", "max":
		switch {
		case model == "max" || spec.Accelerator != hypervisor.KVM:
			return &libvirtxml.DomainCPU{Mode: "maximum"}
		case model == "":
			return &libvirtxml.DomainCPU{Mode: "host-model"}
		}
		return &libvirtxml.DomainCPU{Mode: model}
	default:
		return &libvirtxml.DomainCPU{
			Mode: "custom", Match: "exact",
			Model: &libvirtxml.DomainCPUModel{Value: model, Fallback: "forbid"},
		}
	}
}

// devices of a spec. What a server does not need is left out: graphics, sound, USB.
func devices(spec hypervisor.Spec, consoleDir string) *libvirtxml.DomainDeviceList {
	list := &libvirtxml.DomainDeviceList{
		Controllers: []libvirtxml.DomainController{{Type: "usb", Model: "none"}},
		Serials: []libvirtxml.DomainSerial{{
			Source: &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}},
			Target: &libvirtxml.DomainSerialTarget{Port: new(uint)},
		}},
		RNGs: []libvirtxml.DomainRNG{{
			Model: "virtio",
			Backend: &libvirtxml.DomainRNGBackend{
				Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"},
			},
		}},
	}
	if consoleDir != "" {
		list.Serials[0].Log = &libvirtxml.DomainChardevLog{File: consoleLog(consoleDir, spec.ID), Append: "on"}
	}
	var virtio, sd int // targets given out so far
	target := func(bus string) *libvirtxml.DomainDiskTarget {
		prefix, n := "sd", &sd
		if bus == "virtio" {
			prefix, n = "vd", &virtio
		}
		*n++
		return &libvirtxml.DomainDiskTarget{Dev: prefix + letters(*n-1), Bus: bus}
	}
	last := uint(0) // boot order so far
	scsi := false
	for _, disk := range spec.Disks {
		source := &libvirtxml.DomainDiskSource{}
		if disk.Type == "block" {
			source.Block = &libvirtxml.DomainDiskSourceBlock{Dev: disk.Path}
		} else {
			source.File = &libvirtxml.DomainDiskSourceFile{File: disk.Path}
		}
		d := libvirtxml.DomainDisk{
			Device: "disk", Source: source, Target: target(disk.Bus),
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: disk.Format, Discard: "unmap"},
		}
		if disk.BootOrder > 0 {
			d.Boot = &libvirtxml.DomainDeviceBoot{Order: uint(disk.BootOrder)}
			last = max(last, uint(disk.BootOrder))
		}
		scsi = scsi || disk.Bus == "scsi"
		list.Disks = append(list.Disks, d)
	}
	if scsi {
		list.Controllers = append(list.Controllers, libvirtxml.DomainController{
			Type: "scsi", Index: new(uint), Model: "virtio-scsi",
		})
	}
	if spec.ISO != "" {
		// After the disks: an installed system boots instead of its installer, an empty disk falls through to it.
		list.Disks = append(list.Disks, libvirtxml.DomainDisk{
			Device: "cdrom", ReadOnly: &libvirtxml.DomainDiskReadOnly{}, Target: target("sata"),
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw"},
			Source: &libvirtxml.DomainDiskSource{File: &libvirtxml.DomainDiskSourceFile{File: spec.ISO}},
			Boot:   &libvirtxml.DomainDeviceBoot{Order: last + 1},
		})
	}
	for i, nic := range spec.NICs {
		list.Interfaces = append(list.Interfaces, libvirtxml.DomainInterface{
			MAC:   &libvirtxml.DomainInterfaceMAC{Address: mac(spec.ID, i, nic.MAC)},
			Model: &libvirtxml.DomainInterfaceModel{Type: nic.Model},
			Source: &libvirtxml.DomainInterfaceSource{
				Network: &libvirtxml.DomainInterfaceSourceNetwork{Network: nic.Network},
			},
		})
	}
	return list
}

// letters counts a, b, …, z, aa, ab, … as disks are named.
func letters(n int) string {
	s := ""
	for ; n >= 0; n = n/26 - 1 {
		s = string(rune('a'+n%26)) + s
	}
	return s
}

// mac is the address asked for, or a locally administered one that is always the same for this NIC. 40 bits of it are
// derived: among 100,000 NICs two alike are a matter of 1 in 200.
func mac(id uuid.UUID, index int, wanted string) string {
	if wanted != "" {
		return wanted
	}
	sum := sha256.Sum256([]byte("mac " + id.String() + " " + strconv.Itoa(index)))
	return net.HardwareAddr{0x52, sum[0], sum[1], sum[2], sum[3], sum[4]}.String()
}
