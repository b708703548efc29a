//go:build !no_qemu

package libvirt_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
	"horcrux/services/compute/usage/usagetest"
)

func TestUsageOnQEMU(t *testing.T) {
	d := start(t)
	l := raw(t, d.Socket(), "qemu:///system")
	p := newProxy(t, d.Socket())
	usagetest.Run(t, usagetest.Harness{
		Harness: drivertest.Harness{
			Open:     func(t *testing.T) hypervisor.Driver { return open(t, "qemu+unix:///system?socket="+p.path) },
			Patience: 60 * time.Second,
			Break:    p.breakOff,
			Hang:     p.hang,
			Foreign:  foreign(l, "qemu", "x86_64"),
		},
		Freeze: func(t *testing.T, id uuid.UUID) func() {
			pid := emulator(t, d, l(), id)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			return func() { _ = syscall.Kill(pid, syscall.SIGCONT) } // it may have been killed
		},
	})
}

// emulator is the pid of a running domain's QEMU.
func emulator(t *testing.T, d *libvirtd.Daemon, l *golibvirt.Libvirt, id uuid.UUID) int {
	t.Helper()
	dom, err := l.DomainLookupByUUID(golibvirt.UUID(id))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(d.PID()), "root/run/libvirt/qemu", dom.Name+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}
