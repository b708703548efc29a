//go:build !no_qemu

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"runtime"

	"golang.org/x/sys/unix"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/accel"
	"horcrux/services/compute/hypervisor/libvirt"
)

const (
	compute = "compute"
	qemu    = "qemu"
)

// machine is what QEMU calls this processor.
var machine = map[string]string{"amd64": "x86_64", "arm64": "aarch64", "ppc64le": "ppc64le", "riscv64": "riscv64"}[runtime.GOARCH]

var libvirtSource = source{
	"libvirt-daemon libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-daemon-config-network", "app-emulation/libvirt[qemu,virt-network]",
}

// qemuDriver is the part of libvirt that knows QEMU, where distributions put it.
var qemuDriver = []string{
	"usr/lib*/libvirt/connection-driver/libvirt_driver_qemu.so", "usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so",
}

// qemuPrograms are those that guests need.
var qemuPrograms = []program{
	{
		name: "qemu-system-" + machine, purpose: "guests", ask: "--version", missing: Fail,
		version: regexp.MustCompile(`^QEMU emulator version (\d[\d.]*)`), least: "6.0",
		source: emulatorSource(),
	},
	{
		name: "virtlogd", purpose: "the consoles of guests", ask: "--version", missing: Warn,
		version: regexp.MustCompile(`\(libvirt\) (\d[\d.]*)`), least: leastLibvirt, source: source{"libvirt-daemon-system", libvirtSource.gentoo},
	},
	{
		name: "dnsmasq", purpose: "addresses for guests of NAT networks", ask: "--version", missing: Warn,
		version: regexp.MustCompile(`^Dnsmasq version (\d[\d.]*)`), source: source{"dnsmasq-base", "net-dns/dnsmasq"},
	},
	{
		name: "iptables", purpose: "NAT networks of guests", ask: "--version", missing: Warn,
		version: regexp.MustCompile(`^iptables v(\d[\d.]*)`), source: source{"iptables", "net-firewall/iptables"},
		instead: "nft", // from libvirt 10.4 on
	},
	{
		name: "swtpm", purpose: "guests with a TPM; no other needs it", ask: "--version", missing: Warn,
		version: regexp.MustCompile(`version (\d[\d.]*)`), source: source{"swtpm swtpm-tools", "app-crypt/swtpm"},
	},
}

func emulatorSource() source {
	if machine == "x86_64" {
		return source{"qemu-system-x86 seabios ipxe-qemu", "app-emulation/qemu"}
	}
	return source{"qemu-system", "app-emulation/qemu"}
}

func qemuChecks() []check {
	all := []check{
		{name: "libvirt", purpose: "guests", look: daemon},
		{name: "kvm", purpose: "guests at the speed of the processor", look: kvm},
		{name: "uefi", purpose: "guests with the firmware uefi; no other needs it", look: firmware},
	}
	for _, p := range qemuPrograms {
		all = append(all, p.check())
	}
	for i := range all {
		all[i].service, all[i].use = compute, qemu
	}
	return all
}

const leastLibvirt = "7.0"

// daemon asks the libvirt that the server drives: its private one, the one that is named, or the system's; and without
// any of these looks for the program of which the server will start a private one.
func daemon(ctx context.Context, h *host) Finding {
	c := h.Config.Libvirt
	named := c.URI
	if named == "" {
		named = "qemu:///system"
	}
	if own := h.privateLibvirt(); own != "" {
		f, err := h.askLibvirt(ctx, own)
		if err == nil {
			return f
		}
		if errors.Is(err, fs.ErrPermission) {
			return closed(own, h)
		}
	}
	f, asked := h.askLibvirt(ctx, named)
	switch {
	case c.Private == "yes": // whatever answers there
	case asked == nil:
		return f
	case errors.Is(asked, fs.ErrPermission):
		return warn(named+" is closed to "+me(), asRoot("usermod -aG libvirt "+userName())+", and a new login")
	}
	if c.Private == "no" || c.Private == "auto" && c.URI != "" {
		return fail(named+": "+why(ctx, asked), h.start("libvirtd")+", or horcrux serve --libvirt-private yes")
	}
	own := program{
		name: "libvirtd", ask: "--version", missing: Fail, version: regexp.MustCompile(`\(libvirt\) (\d[\d.]*)`), least: leastLibvirt, source: libvirtSource,
	}
	f = own.look(ctx, h)
	switch {
	case f.Status != OK:
	case !h.exists(qemuDriver):
		f.Status, f.What, f.Mend = Fail, "libvirt's driver of QEMU is not installed", h.install(libvirtSource)
	default:
		f.What += ", of which the server runs a private one"
	}
	return f
}

// exists says whether a file of the patterns does.
func (h *host) exists(patterns []string) bool {
	for _, p := range patterns {
		// Glob fails for a malformed pattern only.
		if files, _ := filepath.Glob(filepath.Join("/", h.Root, p)); len(files) > 0 {
			return true
		}
	}
	return false
}

// privateLibvirt is the URI of the libvirtd of the data dir, "" where it has none or is not to have one.
func (h *host) privateLibvirt() string {
	socket := filepath.Join(h.DataDir, "libvirt/libvirt-sock")
	if _, err := os.Stat(socket); err != nil || h.Config.Libvirt.Private == "no" {
		return ""
	}
	kind := "system"
	if os.Geteuid() != 0 {
		kind = "session"
	}
	return "qemu+unix:///" + kind + "?socket=" + url.QueryEscape(socket)
}

// askLibvirt fails when there is no answer.
func (h *host) askLibvirt(ctx context.Context, uri string) (Finding, error) {
	driver, err := libvirt.Open(libvirt.Options{URI: uri, DialTimeout: h.Timeout})
	if err != nil {
		return Finding{}, err
	}
	defer driver.Close()
	version, err := driver.DaemonVersion(ctx)
	if err != nil {
		return Finding{}, err
	}
	if older(version, leastLibvirt) {
		return Finding{Status: Fail, Version: version, What: uri + " is older than " + leastLibvirt, Mend: h.install(libvirtSource)}, nil
	}
	return ok(version, "answers at "+uri), nil
}

// kvm looks at the device, and whether a kernel is known to come up with it, which the device alone does not say.
func kvm(ctx context.Context, h *host) Finding {
	const device = "/dev/kvm"
	slow := warn
	switch h.Config.Accelerator {
	case string(hypervisor.TCG):
		return ok("", "not asked for: the accelerator is set to tcg")
	case string(hypervisor.KVM):
		slow = fail
	}
	path := filepath.Join("/", h.Root, device)
	if _, err := os.Stat(path); err != nil {
		return slow("no "+device+": guests run with TCG, many times slower",
			"virtualization on in the firmware's set-up (nested, inside a virtual machine), then "+asRoot("modprobe -a kvm_intel kvm_amd"))
	}
	if unix.Access(path, unix.R_OK|unix.W_OK) != nil {
		return slow(device+" is closed to "+me()+": guests that it starts run with TCG", asRoot("usermod -aG kvm "+userName())+", and a new login")
	}
	cache := filepath.Join(h.DataDir, "accelerator.json")
	if f, err := os.Open(cache); errors.Is(err, fs.ErrPermission) {
		return closed(cache, h)
	} else if err == nil {
		f.Close()
	}
	emulator, _ := h.find("qemu-system-" + machine)
	known, remembered := accel.Recall(ctx, accel.Options{QEMU: emulator, CacheFile: cache})
	switch {
	case !remembered:
		return ok("", device+"; whether a kernel comes up with it the start will find out")
	case known.Accelerator == hypervisor.KVM:
		return ok("", line(known.Reason))
	}
	return slow(device+" is there, and guests run with TCG: "+line(known.Reason),
		fmt.Sprintf("rm %s to have it tried again at the next start, with a kernel below %s", cache, filepath.Join(h.DataDir, "images")))
}

func userName() string {
	u, err := user.Current()
	if err != nil {
		return "$USER"
	}
	return u.Username
}
