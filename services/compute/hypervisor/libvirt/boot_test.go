//go:build !no_qemu

package libvirt_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/accel/initrd"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/services/compute/hypervisor/libvirt"
)

const patience = 2 * time.Minute // a guest boots in 2 s under TCG on an idle machine

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// image makes a disk.
func image(t *testing.T, name, format string) string {
	t.Helper()
	path := filepath.Join(shortDir(t), name)
	if out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", format, path, "8M").CombinedOutput(); err != nil {
		t.Fatalf("qemu-img: %v %s", err, out)
	}
	return path
}

// opened says whether a process has the file open.
func opened(t *testing.T, path string) bool {
	t.Helper()
	want, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if is, err := os.Stat(file); err == nil && os.SameFile(is, want) { // many have gone by now
			return true
		}
	}
	return false
}

// machine is a spec with a kernel of its own.
func machine(t *testing.T, then initrd.Then) hypervisor.Spec {
	return hypervisor.Spec{
		ID: uuid.New(), Name: "boot-" + uuid.NewString()[:8], CPUs: 1, MemoryMB: 160, CPUModel: "host-model",
		Machine: "q35", Firmware: "bios", Accelerator: hypervisor.TCG, Serial: true, RNG: true,
		Kernel: guest.Kernel(t), Initrd: guest.Initrd(t, then), Cmdline: "console=ttyS0 panic=-1",
	}
}

func TestGuests(t *testing.T) {
	d := start(t)
	console := shortDir(t)
	if err := os.Chmod(console, 0o777); err != nil { // QEMU may run as another account
		t.Fatal(err)
	}
	drv, err := libvirt.Open(libvirt.Options{URI: d.URI(), ConsoleDir: console})
	if err != nil {
		t.Fatal(err)
	}
	defer drv.Close()
	boot := func(t *testing.T, spec hypervisor.Spec) {
		t.Helper()
		if _, err := drv.Define(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		if err := drv.Start(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
	}
	says := func(t *testing.T, spec hypervisor.Spec, what string) {
		t.Helper()
		log := filepath.Join(console, spec.ID.String()+".log")
		eventually(t, "the guest says "+what, func() bool {
			text, err := os.ReadFile(log)
			return err == nil && bytes.Contains(text, []byte(what))
		})
	}

	t.Run("KernelToUserSpaceAndShutdown", func(t *testing.T) {
		spec := machine(t, initrd.Obey)
		changes, err := drv.Watch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		boot(t, spec)
		says(t, spec, guest.Line)
		if err := drv.Shutdown(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		deadline := time.After(patience)
		for {
			select {
			case c := <-changes:
				if c.ID != spec.ID || c.State == hypervisor.Running {
					continue
				}
				if c.State != hypervisor.Off || c.Cause != "defined" && c.Cause != "shutdown" {
					t.Fatalf("got %+v", c)
				}
				if c.Cause == "defined" {
					continue
				}
			case <-deadline:
				t.Fatal("the guest did not obey")
			}
			break
		}
		if err := drv.Undefine(t.Context(), spec.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(filepath.Join(console, spec.ID.String()+".log")); err == nil {
			t.Error("the console's log is still there")
		}
	})

	t.Run("DisksOnEveryBus", func(t *testing.T) {
		for _, m := range []string{"q35", "pc"} {
			spec := machine(t, initrd.Idle)
			spec.Machine = m
			for i, bus := range []string{"virtio", "scsi", "sata"} {
				for j, format := range []string{"raw", "qcow2"} {
					spec.Disks = append(spec.Disks, hypervisor.Disk{
						Index: 2*i + j, Type: "file", Format: format, Bus: bus, BootOrder: 6 - 2*i - j,
						Path: image(t, fmt.Sprintf("%s.%s", bus, format), format),
					})
				}
			}
			boot(t, spec)
			says(t, spec, guest.Line)
			for _, disk := range spec.Disks {
				if !opened(t, disk.Path) {
					t.Errorf("%s on %s is not in use", disk.Path, m)
				}
			}
			if err := drv.Destroy(t.Context(), spec.ID); err != nil {
				t.Error(err)
			}
		}
	})

	t.Run("ISO", func(t *testing.T) {
		spec := machine(t, initrd.Idle)
		spec.Kernel, spec.Initrd, spec.Cmdline, spec.MemoryMB = "", "", "", 32
		spec.ISO = image(t, "empty.iso", "raw")
		spec.Disks = []hypervisor.Disk{{
			Type: "file", Format: "raw", Bus: "virtio", BootOrder: 1, Path: image(t, "disk.raw", "raw"),
		}}
		boot(t, spec)
		if err := drv.Destroy(t.Context(), spec.ID); err != nil {
			t.Error(err)
		}
	})

	t.Run("WhatCannotStart", func(t *testing.T) {
		for name, spoil := range map[string]func(*hypervisor.Spec){
			"NoSuchDisk": func(s *hypervisor.Spec) {
				s.Disks = []hypervisor.Disk{{Type: "file", Format: "raw", Bus: "virtio", Path: "/nonexistent/disk"}}
			},
			"NoSuchCPUModel": func(s *hypervisor.Spec) { s.CPUModel = "abacus" },
			"NoSuchKernel":   func(s *hypervisor.Spec) { s.Kernel = "/nonexistent/kernel" },
			"NoSuchNetwork":  func(s *hypervisor.Spec) { s.NICs = []hypervisor.NIC{{Network: "nowhere", Model: "virtio"}} },
		} {
			t.Run(name, func(t *testing.T) {
				spec := machine(t, initrd.Idle)
				spoil(&spec)
				if _, err := drv.Define(t.Context(), spec); err != nil {
					t.Fatal(err)
				}
				isInvalid(t, drv.Start(t.Context(), spec.ID))
				dom, err := drv.Domain(t.Context(), spec.ID)
				if err != nil || dom.State != hypervisor.Off {
					t.Errorf("afterwards: %+v, %v", dom, err)
				}
			})
		}
	})

	t.Run("WhatCannotBeDefined", func(t *testing.T) {
		for name, spoil := range map[string]func(*hypervisor.Spec){
			"MachineUnknown": func(s *hypervisor.Spec) { s.Machine = "toaster" },
			"RelativeKernel": func(s *hypervisor.Spec) { s.Kernel = "boot/vmlinuz" },
			"TwiceFirst": func(s *hypervisor.Spec) {
				for range 2 {
					s.Disks = append(s.Disks, hypervisor.Disk{Type: "file", Format: "raw", Bus: "virtio", Path: "/a", BootOrder: 1})
				}
			},
			"BadMAC": func(s *hypervisor.Spec) {
				s.NICs = []hypervisor.NIC{{Network: "default", Model: "virtio", MAC: "not a MAC"}}
			},
			"Bus": func(s *hypervisor.Spec) {
				s.Disks = []hypervisor.Disk{{Type: "file", Format: "raw", Bus: "floppy", Path: "/a"}}
			},
		} {
			t.Run(name, func(t *testing.T) {
				spec := machine(t, initrd.Idle)
				spoil(&spec)
				_, err := drv.Define(t.Context(), spec)
				isInvalid(t, err)
			})
		}
	})
}
