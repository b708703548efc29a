//go:build !no_qemu

package libvirtd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
)

func TestLife(t *testing.T) {
	o, before := options(t), listing(t)
	d := start(t, o)
	drv := driver(t, d.URI())
	info, err := drv.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(info.Accelerators) != 1 || info.Accelerators[0] != hypervisor.TCG {
		t.Errorf("KVM was to be hidden, but QEMU offers %v", info.Accelerators)
	}
	id := run(t, drv)

	t.Run("AnotherStartAdopts", func(t *testing.T) {
		again, err := libvirtd.Start(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if !again.Adopted() || again.PID() != d.PID() {
			t.Errorf("adopted %v, process %d and %d", again.Adopted(), again.PID(), d.PID())
		}
		// The adopter ends it; the first finds out, and starts it again.
		was := again.PID()
		stop(t, again)
		eventually(t, "started again", func() bool { pid := d.PID(); return pid != 0 && pid != was })
		sees(t, drv, id, hypervisor.Running)
	})
	t.Run("KilledIsStartedAgain", func(t *testing.T) {
		was := d.PID()
		if was == 0 { // which to kill means all of us
			t.Fatal("the daemon is down")
		}
		if err := syscall.Kill(was, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "started again", func() bool { pid := d.PID(); return pid != 0 && pid != was })
		if got := d.Deaths(); got[len(got)-1] != "signal: killed" {
			t.Errorf("it died: %q", got)
		}
		sees(t, drv, id, hypervisor.Running)
	})
	t.Run("GuestsOutliveStop", func(t *testing.T) {
		stop(t, d)
		if _, err := drv.Domain(t.Context(), id); !errors.Is(err, hypervisor.ErrUnavailable) {
			t.Errorf("after Stop: %v", err)
		}
		next := start(t, o)
		if next.Adopted() {
			t.Error("adopted what was stopped")
		}
		sees(t, drv, id, hypervisor.Running)
		if err := drv.Destroy(t.Context(), id); err != nil {
			t.Error(err)
		}
		if err := drv.Undefine(t.Context(), id); err != nil {
			t.Error(err)
		}
	})
	if after := listing(t); after != before {
		t.Errorf("the host's folders changed:\n%s\nwere:\n%s", after, before)
	}
}

func TestKilledStarterIsSurvived(t *testing.T) {
	o := options(t)
	pid, uri, kill := helper(t, o, nil)
	drv := driver(t, uri)
	id := run(t, drv)
	kill()

	d := start(t, o)
	if !d.Adopted() || fmt.Sprint(d.PID()) != pid {
		t.Errorf("adopted %v, process %d, was %s", d.Adopted(), d.PID(), pid)
	}
	sees(t, drv, id, hypervisor.Running)
	if err := drv.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
}

func TestStalePidFile(t *testing.T) {
	o := options(t)
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// The number of a process that lives and is not the daemon: us.
	if err := os.WriteFile(filepath.Join(o.Dir, "libvirtd.pid"), fmt.Appendln(nil, os.Getpid()), 0o644); err != nil {
		t.Fatal(err)
	}
	if d := start(t, o); d.Adopted() || d.PID() == os.Getpid() {
		t.Errorf("adopted %v, process %d", d.Adopted(), d.PID())
	}
}

func TestSocketPathTooLong(t *testing.T) {
	o := options(t)
	o.SocketDir = filepath.Join(o.SocketDir, strings.Repeat("x", 80))
	_, err := libvirtd.Start(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "choose a shorter folder") || !strings.Contains(err.Error(), "107") {
		t.Errorf("got %v", err)
	}
}

func TestBrokenDaemonSaysWhy(t *testing.T) {
	o := options(t)
	o.Path = "/bin/false"
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := libvirtd.Start(ctx, o); err == nil || !strings.Contains(err.Error(), "it ended") {
		t.Errorf("got %v", err)
	}
}

// TestStopTakesNetworksDown: nothing of a daemon is left on the host when no guest needs it.
func TestStopTakesNetworksDown(t *testing.T) {
	o := options(t)
	d, err := libvirtd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	link := "hxt" + uuid.NewString()[:8]
	conn, err := net.Dial("unix", d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	l := golibvirt.NewWithDialer(dialed{conn})
	if err := l.ConnectToURI("qemu:///system"); err != nil {
		t.Fatal(err)
	}
	if _, err := l.NetworkCreateXML("<network><name>lan</name><bridge name='" + link + "'/></network>"); err != nil {
		t.Fatal(err)
	}
	if _, err := net.InterfaceByName(link); err != nil {
		t.Errorf("no bridge %s: %v", link, err)
	}
	drv := driver(t, d.URI())
	id := run(t, drv, hypervisor.NIC{Network: "lan", Model: "virtio"})
	sees(t, drv, id, hypervisor.Running)
	if err := drv.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	stop(t, d)
	if _, err := net.InterfaceByName(link); err == nil {
		t.Errorf("bridge %s was left behind", link)
	}
}

func TestWithoutRoot(t *testing.T) {
	o := options(t)
	base := filepath.Dir(o.Dir)
	if err := errors.Join(os.Chmod(base, 0o755), os.Chown(base, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	pid, uri, kill := helper(t, o, &syscall.Credential{Uid: 65534, Gid: 65534})
	var number int
	if _, err := fmt.Sscan(pid, &number); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // nobody supervises it any more
		if err := syscall.Kill(number, syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		eventually(t, "the daemon ends", func() bool { return syscall.Kill(number, 0) != nil })
	})
	if !strings.HasPrefix(uri, "qemu+unix:///session?socket=") {
		t.Errorf("URI %s", uri)
	}
	drv := driver(t, uri)
	id := run(t, drv)
	sees(t, drv, id, hypervisor.Running)
	if err := drv.Destroy(t.Context(), id); err != nil {
		t.Error(err)
	}
	kill()
}
