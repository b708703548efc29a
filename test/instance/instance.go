package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/problem"
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

// Ready waits until /readyz is content.
func (i *Instance) Ready() {
	i.T.Helper()
	if err := i.ready(); err != nil {
		i.T.Fatalf("%v\n%s", err, i.log)
	}
}

func (i *Instance) ready() error {
	last := "no answer"
	for end := time.Now().Add(readyTime); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if r, err := i.HTTP.Get("http://horcrux/readyz"); err == nil {
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

// Stop ends the process with SIGTERM and waits.
func (i *Instance) Stop() {
	i.T.Helper()
	if i.cmd == nil {
		return
	}
	_ = i.cmd.Process.Signal(syscall.SIGTERM)
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

// Log is the end of what the process printed.
func (i *Instance) Log() string { return i.log.String() }

// Answer is a response with its body read.
type Answer struct {
	*http.Response
	Bytes []byte
}

// Try sends a request; body is a string, or marshalled. It fails only when there is no answer.
func (i *Instance) Try(method, path string, body any, header ...string) (Answer, error) {
	var b []byte
	switch v := body.(type) {
	case nil:
	case string:
		b = []byte(v)
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			return Answer{}, err
		}
	}
	req, err := http.NewRequest(method, "http://horcrux"+path, bytes.NewReader(b))
	if err != nil {
		return Answer{}, err
	}
	if b != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for j := 0; j+1 < len(header); j += 2 {
		req.Header.Set(header[j], header[j+1])
	}
	res, err := i.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, err
	}
	if i.Check != nil {
		res.Body = io.NopCloser(bytes.NewReader(out))
		if err := i.Check(req, res); err != nil {
			return Answer{}, fmt.Errorf("%s %s is not as the contract says: %w\n%s", method, path, err, out)
		}
	}
	return Answer{res, out}, nil
}

// Do is Try that must be answered.
func (i *Instance) Do(method, path string, body any, header ...string) Answer {
	i.T.Helper()
	a, err := i.Try(method, path, body, header...)
	if err != nil {
		i.T.Fatal(err)
	}
	return a
}

// Get reads a JSON answer into v, which must come with 200.
func (i *Instance) Get(path string, v any) {
	i.T.Helper()
	a := i.Do("GET", path, nil)
	if a.StatusCode != http.StatusOK {
		i.T.Fatalf("GET %s: %d %s", path, a.StatusCode, a.Bytes)
	}
	if err := json.Unmarshal(a.Bytes, v); err != nil {
		i.T.Fatalf("GET %s: %v\n%s", path, err, a.Bytes)
	}
}

// Must sends a mutation with wait and wants its operation to have succeeded.
func (i *Instance) Must(method, path string, body any, header ...string) operation.View {
	i.T.Helper()
	op := i.Operation(method, path, body, header...)
	if op.State != operation.StateSucceeded {
		i.T.Fatalf("%s %s: %s %+v", method, path, op.State, op.Error)
	}
	return op
}

// Operation sends a mutation with wait and returns its operation.
func (i *Instance) Operation(method, path string, body any, header ...string) operation.View {
	i.T.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	a := i.Do(method, path+sep+"wait=60", body, header...)
	if a.StatusCode != http.StatusOK {
		i.T.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.Bytes)
	}
	return i.view(a)
}

func (i *Instance) view(a Answer) operation.View {
	i.T.Helper()
	var op operation.View
	if err := json.Unmarshal(a.Bytes, &op); err != nil {
		i.T.Fatalf("%v: %s", err, a.Bytes)
	}
	return op
}

// Problem sends a request that must be answered with a problem.
func (i *Instance) Problem(method, path string, body any, header ...string) (int, problem.Problem) {
	i.T.Helper()
	a := i.Do(method, path, body, header...)
	var p problem.Problem
	if err := json.Unmarshal(a.Bytes, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
		i.T.Fatalf("%s %s: not a problem: %d %s", method, path, a.StatusCode, a.Bytes)
	}
	return a.StatusCode, p
}

// Eventually waits until ok holds.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
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
