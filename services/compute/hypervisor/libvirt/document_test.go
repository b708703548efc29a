//go:build !no_qemu

package libvirt

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

func full() hypervisor.Spec {
	return hypervisor.Spec{
		ID: uuid.MustParse("0190c1a0-0000-7000-8000-000000000001"), Name: "web", Description: "a < b & c",
		CPUs: 2, MaxCPUs: 4, MemoryMB: 512, CPUModel: "host-model", Machine: "q35", Firmware: "uefi", Accelerator: hypervisor.KVM,
		Disks: []hypervisor.Disk{
			{Type: "file", Path: "/p/1.qcow2", Format: "qcow2", Bus: "virtio", BootOrder: 1},
			{Index: 1, Type: "block", Path: "/dev/vg/2", Format: "raw", Bus: "scsi"},
			{Index: 2, Type: "file", Path: "/p/3.raw", Format: "raw", Bus: "sata", BootOrder: 4},
		},
		NICs: []hypervisor.NIC{{Network: "default", Model: "virtio"}, {Network: "lan", Model: "e1000", MAC: "52:54:00:00:00:01"}},
		ISO:  "/iso/i.iso", Kernel: "/k", Initrd: "/i", Cmdline: "console=ttyS0 \"x\"",
	}
}

// textOf is the document of a spec.
func textOf(t testing.TB, spec hypervisor.Spec, consoleDir string) string {
	t.Helper()
	d, err := document(spec, "qemu", consoleDir)
	if err != nil {
		t.Fatal(err)
	}
	text, err := marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestDocument(t *testing.T) {
	text := textOf(t, full(), "")
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if d.Type != "kvm" || d.Name != "web" || d.UUID != full().ID.String() || d.Description != "a < b & c" ||
		d.VCPU.Value != 4 || d.VCPU.Current != 2 || d.Memory.Value != 512 || d.Memory.Unit != "MiB" || d.CPU.Mode != "host-model" {
		t.Errorf("machine: %s", text)
	}
	if d.OS.Firmware != "efi" || d.OS.Type.Machine != "q35" || d.OS.Kernel != "/k" || d.OS.Initrd != "/i" ||
		d.OS.Cmdline != "console=ttyS0 \"x\"" {
		t.Errorf("boot: %+v", d.OS)
	}
	if !strings.Contains(d.Metadata.XML, namespace) {
		t.Errorf("no mark: %s", d.Metadata.XML)
	}
	var targets []string
	for _, disk := range d.Devices.Disks {
		targets = append(targets, disk.Target.Dev+" "+disk.Target.Bus)
	}
	if got := strings.Join(targets, ", "); got != "vda virtio, sdc scsi, sdd sata, sda sata" {
		t.Errorf("disks: %s", got)
	}
	if d.Devices.Disks[1].Source.Block == nil || d.Devices.Disks[1].Boot != nil {
		t.Errorf("block disk: %+v", d.Devices.Disks[1])
	}
	if iso := d.Devices.Disks[3]; iso.Device != "cdrom" || iso.ReadOnly == nil || iso.Boot.Order != 5 {
		t.Errorf("ISO: %+v", iso)
	}
	nics := d.Devices.Interfaces
	if nics[1].MAC.Address != "52:54:00:00:00:01" || nics[0].MAC.Address[:3] != "52:" || nics[0].Model.Type != "virtio" {
		t.Errorf("NICs: %+v", nics)
	}
	if again := textOf(t, full(), ""); again != text {
		t.Error("the same spec gives another document")
	}
}

func TestCPUModel(t *testing.T) {
	for _, tc := range []struct {
		model string
		accel hypervisor.Accelerator
		want  string
	}{
		{"", hypervisor.KVM, "host-model"},
		{"host-model", hypervisor.KVM, "host-model"},
		{"host-passthrough", hypervisor.KVM, "host-passthrough"},
		{"max", hypervisor.KVM, "maximum"},
		{"", hypervisor.TCG, "maximum"},
		{"host-model", hypervisor.TCG, "maximum"},
		{"host-passthrough", hypervisor.TCG, "maximum"},
		{"qemu64", hypervisor.TCG, "custom"},
	} {
		if got := cpu(hypervisor.Spec{CPUModel: tc.model, Accelerator: tc.accel}); got.Mode != tc.want {
			t.Errorf("%s with %s: %s, want %s", tc.model, tc.accel, got.Mode, tc.want)
		}
	}
}

func TestCheckNamesWhatIsWrong(t *testing.T) {
	for name, spoil := range map[string]func(*hypervisor.Spec){
		"id":          func(s *hypervisor.Spec) { s.ID = uuid.Nil },
		"name":        func(s *hypervisor.Spec) { s.Name = "" },
		"CPUs":        func(s *hypervisor.Spec) { s.CPUs = -1 },
		"memory":      func(s *hypervisor.Spec) { s.MemoryMB = 0 },
		"accelerator": func(s *hypervisor.Spec) { s.Accelerator = "hvf" },
		"firmware":    func(s *hypervisor.Spec) { s.Firmware = "coreboot" },
		"absolute":    func(s *hypervisor.Spec) { s.ISO = "../x.iso" },
		"disk 1":      func(s *hypervisor.Spec) { s.Disks[1].Format = "vmdk" },
	} {
		spec := full()
		spoil(&spec)
		if _, err := document(spec, "qemu", ""); !errors.Is(err, hypervisor.ErrInvalid) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLetters(t *testing.T) {
	for n, want := range map[int]string{0: "a", 25: "z", 26: "aa", 27: "ab", 701: "zz", 702: "aaa"} {
		if got := letters(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
