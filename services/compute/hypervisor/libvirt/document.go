//go:build !no_qemu

package libvirt

import (
	"fmt"
	"path/filepath"
	"runtime"
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

// document is the domain of a spec. It fails with ErrInvalid.
func document(spec hypervisor.Spec, kind, consoleDir string) (*libvirtxml.Domain, error) {
	if err := check(spec); err != nil {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	d := &libvirtxml.Domain{
		Type:        domainType[spec.Accelerator],
		Name:        spec.Name,
		UUID:        spec.ID.String(),
		Description: spec.Description,
		Metadata:    &libvirtxml.DomainMetadata{XML: mark},
		Memory:      &libvirtxml.DomainMemory{Value: uint(spec.MemoryMB), Unit: "MiB"},
		VCPU:        vcpu(spec),
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
	firmware(d, spec)
	if kind == "test" { // it has machines of its own and no real ones
		d.Type, d.CPU, d.OS.Firmware = "test", nil, ""
		d.OS.Type.Machine, d.OS.Type.Arch = "", "i686"
	}
	return d, nil
}

// marshal is the text of a domain.
func marshal(d *libvirtxml.Domain) (string, error) {
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
	case spec.SecureBoot && spec.Firmware != "uefi":
		return fmt.Errorf("secure boot with firmware %q", spec.Firmware)
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

// vcpu lets CPUs be added up to the maximum.
func vcpu(spec hypervisor.Spec) *libvirtxml.DomainVCPU {
	if spec.MaxCPUs <= spec.CPUs {
		return &libvirtxml.DomainVCPU{Value: uint(spec.CPUs)}
	}
	return &libvirtxml.DomainVCPU{Value: uint(spec.MaxCPUs), Current: uint(spec.CPUs)}
}

// firmware is found by libvirt among the descriptions that the distribution installs, by what it can do.
func firmware(d *libvirtxml.Domain, spec hypervisor.Spec) {
	if spec.Firmware != "uefi" {
		return
	}
	secure := "no"
	if spec.SecureBoot {
		secure = "yes"
		d.Features.SMM = &libvirtxml.DomainFeatureSMM{State: "on"} // it guards the variables
	}
	d.OS.Firmware = "efi"
	d.OS.FirmwareInfo = &libvirtxml.DomainOSFirmwareInfo{Features: []libvirtxml.DomainOSFirmwareFeature{
		{Enabled: secure, Name: "secure-boot"}, {Enabled: secure, Name: "enrolled-keys"},
	}}
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

// letters counts a, b, …, z, aa, ab, … as disks are named.
func letters(n int) string {
	s := ""
	for ; n >= 0; n = n/26 - 1 {
		s = string(rune('a'+n%26)) + s
	}
	return s
}
