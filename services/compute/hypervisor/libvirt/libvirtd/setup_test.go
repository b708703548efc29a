//go:build !no_qemu

package libvirtd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/libvirt"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
)

// helperEnv makes this test binary start a daemon with these options, say its process, and wait to be killed.
const helperEnv = "HORCRUX_TEST_LIBVIRTD"

func TestMain(m *testing.M) {
	libvirtd.Hook()
	if text := os.Getenv(helperEnv); text != "" {
		var opts libvirtd.Options
		if err := json.Unmarshal([]byte(text), &opts); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		d, err := libvirtd.Start(context.Background(), opts)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(d.PID(), d.URI())
		select {}
	}
	goleak.VerifyTestMain(m)
}

func options(t *testing.T) libvirtd.Options {
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
	dir, err := os.MkdirTemp("/tmp", "hx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		endGuests(t, filepath.Join(dir, "state/run/qemu"))
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return libvirtd.Options{Dir: filepath.Join(dir, "state"), SocketDir: filepath.Join(dir, "s")}
}

// endGuests kills what a test has left running, by the pid files of its own daemon.
func endGuests(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.pid")) // fails only for a bad pattern
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Error(err)
			continue
		}
		var pid int
		if _, err := fmt.Sscan(string(text), &pid); err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Error(err)
		}
	}
}

func start(t *testing.T, o libvirtd.Options) *libvirtd.Daemon {
	t.Helper()
	d, err := libvirtd.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, d) })
	return d
}

func stop(t *testing.T, d *libvirtd.Daemon) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := d.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func driver(t *testing.T, uri string) *libvirt.Driver {
	t.Helper()
	d, err := libvirt.Open(libvirt.Options{URI: uri})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// run starts a guest.
func run(t *testing.T, d *libvirt.Driver, nics ...hypervisor.NIC) uuid.UUID {
	t.Helper()
	spec := hypervisor.Spec{
		ID: uuid.New(), Name: "g-" + uuid.NewString()[:8], CPUs: 1, MemoryMB: 32, Machine: "q35",
		Accelerator: hypervisor.TCG, NICs: nics,
	}
	if _, err := d.Define(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Start(t.Context(), spec.ID); err != nil {
		t.Fatal(err)
	}
	return spec.ID
}

func sees(t *testing.T, d *libvirt.Driver, id uuid.UUID, want hypervisor.State) {
	t.Helper()
	eventually(t, fmt.Sprintf("the guest is %s", want), func() bool {
		dom, err := d.Domain(t.Context(), id)
		return err == nil && dom.State == want
	})
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(60 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

// listing is what is in the host's own libvirt folders.
func listing(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, root := range []string{"/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt", "/run/libvirt"} {
		err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == root {
				return nil // a folder that is not there has nothing in it
			}
			info, err := e.Info()
			if err == nil {
				fmt.Fprintln(&b, path, info.Size(), info.ModTime())
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// helper starts a daemon in a process of its own, as another user if asked to.
func helper(t *testing.T, o libvirtd.Options, as *syscall.Credential) (pid, uri string, kill func()) {
	t.Helper()
	text, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	self := "/proc/self/exe" // also where others may not look
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), helperEnv+"="+string(text), "HOME="+filepath.Dir(o.Dir))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed := false
	kill = func() {
		if !killed {
			killed = true
			_ = cmd.Process.Kill() // perhaps it has ended
			_ = cmd.Wait()
		}
	}
	t.Cleanup(kill)
	said, err := bufio.NewReader(out).ReadString('\n')
	if _, scan := fmt.Sscan(said, &pid, &uri); err != nil || scan != nil {
		t.Fatalf("helper: %s %v", said, err)
	}
	return pid, uri, kill
}

type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }
