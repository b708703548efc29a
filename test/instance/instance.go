package instance

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
)

const (
	readyTime = 60 * time.Second // also of an instance that first makes its Postgres
	stopTime  = 30 * time.Second
)

// Instance is one data dir and the process that serves it, if any.
type Instance struct {
	T    testing.TB
	Bin  string
	Dir  string   // data dir
	Args []string // of serve, besides the data dir
	Env  []string // besides the environment
	// Probe is the path that answers 200 once the instance is up; "" is /readyz. One without a hypervisor is never ready.
	Probe string
	// Part says that others belong to this one, so that the test itself has to take down what they have made together.
	Part bool
	// Check sees every answer, whose body can be read; nil for none. What it fails with, the request fails with.
	Check func(*http.Request, *http.Response) error

	HTTP *http.Client

	cmd  *exec.Cmd
	done chan struct{}
	log  *tail
}

// New returns an instance on a data dir of its own that is not running. When the test ends it is stopped, and its
// guests, libvirtd and Postgres with it.
func New(t testing.TB, bin string, args ...string) *Instance {
	t.Helper()
	dir, err := os.MkdirTemp("", "hx")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { // Postgres and QEMU run as other users
		t.Fatal(err)
	}
	i := &Instance{T: t, Bin: bin, Dir: filepath.Join(dir, "d"), Args: args, log: &tail{}}
	socket := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", i.Socket())
	}
	i.HTTP = &http.Client{Transport: &http.Transport{DialContext: socket, MaxIdleConnsPerHost: 64}, Timeout: 5 * time.Minute}
	t.Cleanup(func() {
		i.T = t
		i.cleanUp()
		if t.Failed() {
			t.Logf("log of the instance:\n%s", i.log)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove the data dir: %v", err)
		}
	})
	return i
}

// cleanUp leaves nothing of the instance running: guests live longer than the processes that started them, so what a
// test has killed is started once more to take them down.
func (i *Instance) cleanUp() {
	if i.Part {
		i.Stop()
		return
	}
	if _, err := os.Stat(filepath.Join(i.Dir, "postgres")); err != nil {
		return // it never came so far
	}
	if i.cmd == nil {
		i.Launch()
	}
	if err := i.ready(); err != nil {
		i.T.Errorf("clean up: %v", err)
	} else {
		i.DeleteVMs()
	}
	i.Stop()
}

// DeleteVMs deletes every virtual machine by force.
func (i *Instance) DeleteVMs() {
	i.T.Helper()
	if i.Ended() { // by a crash that the test did not expect
		i.cmd = nil
		i.Start()
	}
	if i.Do("GET", "/api/vms", nil).StatusCode == http.StatusNotImplemented {
		return // built without
	}
	var list struct{ Items []struct{ ID string } }
	i.Get("/api/vms?limit=1000", &list)
	for _, vm := range list.Items {
		a, err := i.Try("DELETE", "/api/vms/"+vm.ID+"?force=true&wait=60", nil)
		if err != nil || a.StatusCode != http.StatusOK || i.view(a).State != operation.StateSucceeded {
			i.T.Errorf("delete %s: %v %s", vm.ID, err, a.Bytes)
		}
	}
}

// Socket is the path of the REST socket.
func (i *Instance) Socket() string { return filepath.Join(i.Dir, "api.sock") }

// Start starts the process and waits until it is ready.
func (i *Instance) Start(env ...string) *Instance {
	i.T.Helper()
	i.Launch(env...)
	i.Ready()
	return i
}

// Launch starts the process and does not wait.
func (i *Instance) Launch(env ...string) {
	i.T.Helper()
	if i.cmd != nil {
		i.T.Fatal("the instance runs already")
	}
	args := append([]string{"serve", "--data-dir", i.Dir}, i.Args...)
	i.cmd = exec.Command(i.Bin, args...)
	i.cmd.Env = append(append(os.Environ(), i.Env...), env...)
	i.cmd.Stdout, i.cmd.Stderr = i.log, i.log
	if err := i.cmd.Start(); err != nil {
		i.T.Fatal(err)
	}
	done, cmd := make(chan struct{}), i.cmd
	i.done = done
	go func() { // ends with the process, which Stop and Kill wait for
		_ = cmd.Wait() // how it ended is in ProcessState
		close(done)
	}()
}

// Ready waits until the instance is up.
func (i *Instance) Ready() {
	i.T.Helper()
	if err := i.ready(); err != nil {
		i.T.Fatalf("%v\n%s", err, i.log)
	}
}

func (i *Instance) ready() error {
	last := "no answer"
	for end := time.Now().Add(readyTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if r, err := i.HTTP.Get("http://horcrux" + cmp.Or(i.Probe, "/readyz")); err == nil {
			b, err := io.ReadAll(r.Body)
			r.Body.Close()
			if last = string(b); err == nil && r.StatusCode == http.StatusOK {
				return nil
			}
		}
		if i.Ended() {
			return fmt.Errorf("horcrux ended: %s", i.cmd.ProcessState)
		}
	}
	return fmt.Errorf("not ready within %s: %s", readyTime, last)
}

// Pid of the process, 0 when none runs.
func (i *Instance) Pid() int {
	if i.cmd == nil {
		return 0
	}
	return i.cmd.Process.Pid
}

// Kill ends the process with SIGKILL.
func (i *Instance) Kill() {
	i.T.Helper()
	if i.cmd == nil {
		return
	}
	_ = i.cmd.Process.Kill() // it may have ended
	i.Died()
}

// Died waits for the process to end by itself.
func (i *Instance) Died() {
	i.T.Helper()
	select {
	case <-i.done:
	case <-time.After(readyTime):
		i.T.Fatalf("horcrux did not end\n%s", i.log)
	}
	i.HTTP.CloseIdleConnections()
	i.cmd = nil
}

// Ended says whether the process has ended by itself.
func (i *Instance) Ended() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// Signal sends the process a signal. It may have ended.
func (i *Instance) Signal(s os.Signal) { _ = i.cmd.Process.Signal(s) }

// Stop ends the process with SIGTERM and waits.
func (i *Instance) Stop() {
	i.T.Helper()
	if i.cmd == nil {
		return
	}
	i.Signal(syscall.SIGTERM)
	select {
	case <-i.done:
	case <-time.After(stopTime):
		_ = i.cmd.Process.Kill()
		<-i.done
		i.T.Errorf("horcrux did not stop within %s\n%s", stopTime, i.log)
	}
	i.HTTP.CloseIdleConnections()
	i.cmd = nil
}

// Reboot stops the process in order and starts it as after a boot of the host, to a private libvirtd at least. No guest
// may run.
func (i *Instance) Reboot() {
	i.T.Helper()
	i.Stop()
	if err := os.Remove(filepath.Join(i.Dir, "libvirt", "boot.id")); err != nil {
		i.T.Fatal(err)
	}
	i.Start()
}

// Log is the end of what the process printed.
func (i *Instance) Log() string { return i.log.String() }

// Run is t.Run, with the instance reporting to the subtest for as long as that lasts.
func (i *Instance) Run(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		defer func(outer testing.TB) { i.T = outer }(i.T)
		i.T = t
		f(t)
	})
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailSize {
		t.b = append([]byte(nil), t.b[len(t.b)-tailSize:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.b)
}
