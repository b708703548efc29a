//go:build !no_qemu

package libvirt_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/hypervisor/libvirt"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
)

func TestMain(m *testing.M) {
	libvirtd.Hook()
	goleak.VerifyTestMain(m)
}

// shortDir is a folder whose sockets have short paths.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/tmp", "hx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// start runs a private daemon for the length of the test.
func start(t *testing.T) *libvirtd.Daemon {
	t.Helper()
	if testing.Short() {
		t.Skip("short: starts a daemon")
	}
	if os.Geteuid() != 0 {
		t.Skip("real: libvirt: a daemon with mounts of its own needs root")
	}
	if _, err := exec.LookPath("libvirtd"); err != nil {
		t.Skipf("real: libvirt: %v", err)
	}
	dir := shortDir(t)
	d, err := libvirtd.Start(t.Context(), libvirtd.Options{Dir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "s")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		destroyAll(ctx, t, d.URI())
		if err := d.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

// destroyAll leaves no guest behind, whatever the test did.
func destroyAll(ctx context.Context, t *testing.T, uri string) {
	drv := open(t, uri)
	defer drv.Close()
	all, err := drv.Domains(ctx)
	if err != nil {
		t.Error(err)
	}
	for _, dom := range all {
		if err := drv.Destroy(ctx, dom.ID); err != nil {
			t.Error(err)
		}
	}
}

func open(t *testing.T, uri string) *libvirt.Driver {
	t.Helper()
	d, err := libvirt.Open(libvirt.Options{URI: uri})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// raw is a connection past the driver, for what only others do. It is made again when the daemon has been.
func raw(t *testing.T, socket, uri string) func() *golibvirt.Libvirt {
	var l *golibvirt.Libvirt
	connect := func() *golibvirt.Libvirt {
		t.Helper()
		if l != nil && l.IsConnected() {
			return l
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		l = golibvirt.NewWithDialer(dialed{conn})
		if err := l.ConnectToURI(golibvirt.ConnectURI(uri)); err != nil {
			t.Fatal(err)
		}
		return l
	}
	connect()
	return connect
}

type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }

func handle(id uuid.UUID) golibvirt.Domain { return golibvirt.Domain{UUID: golibvirt.UUID(id), ID: -1} }

// connect gives guests a network that leads nowhere, until the test ends.
func connect(t *testing.T, l func() *golibvirt.Libvirt) {
	t.Helper()
	net, err := l().NetworkCreateXML("<network><name>default</name><bridge name='hxt" + strconv.Itoa(os.Getpid()%100_000) + "'/></network>")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l().NetworkDestroy(net); err != nil {
			t.Error(err)
		}
	})
}

func description(l func() *golibvirt.Libvirt) func(*testing.T, uuid.UUID) string {
	return func(t *testing.T, id uuid.UUID) string {
		text, err := l().DomainGetMetadata(handle(id), int32(golibvirt.DomainMetadataDescription), nil, 0)
		var said golibvirt.Error
		if errors.As(err, &said) && golibvirt.ErrorNumber(said.Code) == golibvirt.ErrNoDomainMetadata {
			return ""
		}
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

func foreign(l func() *golibvirt.Libvirt, kind, arch string) func(*testing.T, hypervisor.Spec) {
	return func(t *testing.T, spec hypervisor.Spec) {
		_, err := l().DomainDefineXML("<domain type='" + kind + "'><name>" + spec.Name + "</name><uuid>" + spec.ID.String() +
			"</uuid><memory unit='MiB'>32</memory><os><type arch='" + arch + "'>hvm</type></os></domain>")
		if err != nil {
			t.Fatal(err)
		}
	}
}

// died is a Harness.Died. Now and then libvirt 9.0 finds its own heap corrupt and aborts. That is forgiven once.
func died(t *testing.T, d *libvirtd.Daemon) func() string {
	within := func(limit time.Duration, holds func() bool) bool {
		for end := time.Now().Add(limit); !holds(); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				return false
			}
		}
		return true
	}
	seen := 0
	return func() string {
		if !within(2*time.Second, func() bool { return len(d.Deaths()) > seen }) {
			return ""
		}
		if seen = len(d.Deaths()); seen > 1 {
			t.Errorf("the daemon died %d times: %s", seen, d.Deaths())
			return ""
		}
		if !within(30*time.Second, func() bool { return d.PID() != 0 }) {
			t.Error("the daemon is not started again")
			return ""
		}
		return d.Deaths()[0]
	}
}

func TestConformanceOnTheTestDriver(t *testing.T) {
	d := start(t)
	// The test driver forgets its domains with its last connection: this one stays.
	l := raw(t, d.Socket(), "test:///default")
	p := newProxy(t, d.Socket())
	drivertest.Run(t, drivertest.Harness{
		Open:        func(t *testing.T) hypervisor.Driver { return open(t, "test:///default?socket="+p.path) },
		Died:        died(t, d),
		Burst:       200,
		Networks:    []string{"default"},
		Break:       p.breakOff,
		Hang:        p.hang,
		Foreign:     foreign(l, "test", "i686"),
		Description: description(l),
		Lacks: map[drivertest.Capability]string{
			drivertest.Crash: "its guests have no process", drivertest.Reset: "the test driver has no reset",
			drivertest.Change: "its guests have no devices", drivertest.Snapshot: "its guests have no disks",
		},
	})
}

func TestConformanceOnQEMU(t *testing.T) {
	d := start(t)
	l := raw(t, d.Socket(), "qemu:///system")
	connect(t, l)
	p := newProxy(t, d.Socket())
	drivertest.Run(t, drivertest.Harness{
		Died: died(t, d),
		Open: func(t *testing.T) hypervisor.Driver {
			return open(t, "qemu+unix:///system?socket="+p.path)
		},
		Patience:    30 * time.Second,
		Networks:    []string{"default"},
		Sees:        sees(l),
		Volume:      volume,
		Image:       qcow2,
		Write:       write,
		Read:        read,
		Break:       p.breakOff,
		Hang:        p.hang,
		Foreign:     foreign(l, "qemu", "x86_64"),
		Description: description(l),
		Crash: func(t *testing.T, id uuid.UUID) {
			pid := emulator(t, d, l(), id)
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
	})
}
