//go:build !no_qemu

package doctor

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is advised is what build/setup installs.
func TestPackages(t *testing.T) {
	text, err := os.ReadFile("../../../../build/packages")
	if err != nil {
		t.Fatal(err)
	}
	packages, probes := map[string]bool{}, map[string]bool{}
	for l := range strings.Lines(string(text)) {
		if f := strings.Split(l, "|"); len(f) == 7 && !strings.HasPrefix(l, "#") {
			for _, p := range strings.Fields(f[4]) {
				packages[p] = true
			}
			for _, p := range strings.Fields(f[3]) {
				probes[p] = true
			}
		}
	}
	for _, p := range append(slices.Clone(qemuPrograms), qemuImg, program{name: "postgres", source: postgresSource}, program{name: "libvirtd", source: libvirtSource}) {
		for _, name := range strings.Fields(p.source.debian) {
			if probes[p.name] && !packages[name] {
				t.Errorf("%s: build/packages knows no %s", p.name, name)
			}
		}
	}
}

func TestLibvirt(t *testing.T) {
	const gone = "qemu+unix:///system?socket=/nonexistent/socket"
	see := func(h *host) Finding { return daemon(t.Context(), h) }
	wants(t, see(bench(t, "--libvirt-uri", gone)), Fail, gone, "systemctl start libvirtd", "--libvirt-private yes")
	wants(t, see(bench(t, "--libvirt-uri", gone, "--libvirt-private", "no")), Fail, gone)
	wants(t, see(bench(t, "--libvirt-uri", "xen:///", "--libvirt-private", "no")), Fail, "xen")

	h := bench(t, "--libvirt-uri", gone, "--libvirt-private", "yes")
	wants(t, see(h), Fail, "not installed", "libvirt-daemon-system")
	h.program(t, "libvirtd", "echo 'libvirtd (libvirt) 9.0.0'")
	wants(t, see(h), Fail, "driver of QEMU", "libvirt-daemon-driver-qemu")
	driver := filepath.Join(h.Root, "usr/lib/x86_64-linux-gnu/libvirt/connection-driver")
	if err := os.MkdirAll(driver, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(driver, "libvirt_driver_qemu.so"), "", 0o644)
	wants(t, see(h), OK, "9.0.0", "private")
}

func TestKVM(t *testing.T) {
	see := func(h *host) Finding { return kvm(t.Context(), h) }
	wants(t, see(bench(t)), Warn, "no /dev/kvm", "modprobe")
	wants(t, see(bench(t, "--accelerator", "kvm")), Fail, "no /dev/kvm")
	wants(t, see(bench(t, "--accelerator", "tcg")), OK, "tcg")

	h := bench(t)
	for _, dir := range []string{filepath.Join(h.Root, "dev"), h.DataDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(h.Root, "dev/kvm"), "", 0o600)
	wants(t, see(h), OK, "the start will find out")

	// As a start remembers it, which is said for as long as kernel, QEMU and CPU stay what they are.
	h.program(t, "qemu-system-"+machine, "echo 'QEMU emulator version 7.2.22'")
	remember := func(accelerator, reason, emulator string) {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			t.Fatal(err)
		}
		info, err := os.ReadFile("/proc/cpuinfo")
		if err != nil {
			t.Fatal(err)
		}
		_, cpu, _ := strings.Cut(string(info), "model name\t: ")
		cpu, _, _ = strings.Cut(cpu, "\n")
		text, err := json.Marshal([]map[string]string{{
			"kernel_release": unix.ByteSliceToString(u.Release[:]), "qemu": emulator, "cpu": cpu, "accelerator": accelerator, "reason": reason,
		}})
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(h.DataDir, "accelerator.json"), string(text), 0o600)
	}
	const same = "QEMU emulator version 7.2.22"
	remember("kvm", "vmlinuz came up", same)
	wants(t, see(h), OK, "vmlinuz came up")
	remember("tcg", "no kernel came up", same)
	wants(t, see(h), Warn, "no kernel came up", "rm ", "accelerator.json")
	remember("tcg", "no kernel came up", "QEMU emulator version 6.0.0")
	wants(t, see(h), OK, "the start will find out")
}

func TestFirmware(t *testing.T) {
	h := bench(t)
	see := func() Finding { return firmware(t.Context(), h) }
	wants(t, see(), Warn, "not installed", "ovmf")
	describe := func(name, code, features string) {
		for _, dir := range []string{"usr/share/qemu/firmware", "usr/share/OVMF"} {
			if err := os.MkdirAll(filepath.Join(h.Root, dir), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		put(t, filepath.Join(h.Root, "usr/share/qemu/firmware", name), `{"interface-types": ["uefi"],
			"mapping": {"device": "flash", "executable": {"filename": "`+code+`", "format": "raw"}},
			"targets": [{"architecture": "`+machine+`", "machines": ["pc-q35-*"]}], "features": [`+features+`]}`, 0o644)
	}
	describe("60.json", "/usr/share/OVMF/CODE.fd", `"acpi-s3"`)
	wants(t, see(), Warn, "not installed") // the file that it names is not there
	put(t, filepath.Join(h.Root, "usr/share/OVMF/CODE.fd"), "", 0o644)
	wants(t, see(), Warn, "none with Secure Boot")
	describe("50.json", "/usr/share/OVMF/SECURE.fd", `"secure-boot","requires-smm"`)
	put(t, filepath.Join(h.Root, "usr/share/OVMF/SECURE.fd"), "", 0o644)
	wants(t, see(), OK, "/usr/share/OVMF/CODE.fd, with Secure Boot /usr/share/OVMF/SECURE.fd")
	put(t, filepath.Join(h.Root, "usr/share/qemu/firmware/10.json"), "rubbish", 0o644)
	wants(t, see(), OK)
}
