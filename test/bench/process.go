package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/pgserver"
)

// process is a Horcrux in a process of its own.
type process struct {
	client
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	log  *bytes.Buffer // what it printed; read after done
}

// socketIn is where a Horcrux of a data dir listens.
func socketIn(dir string) string { return filepath.Join(dir, "api.sock") }

// launch starts a program that opens api.sock in dir. It does not wait until it is ready. What the program prints goes
// to also, too, unless that is nil.
func launch(also io.Writer, dir, program string, args ...string) (*process, error) {
	p := &process{
		client: newClient(socketIn(dir)), dir: dir, cmd: exec.Command(program, args...), done: make(chan struct{}), log: &bytes.Buffer{},
	}
	var out io.Writer = p.log
	if also != nil {
		out = io.MultiWriter(out, also)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // ends with the process, for which stop waits
		_ = p.cmd.Wait() // how it ended is in ProcessState
		close(p.done)
	}()
	return p, nil
}

// launchFake starts this program as a node on a fake hypervisor.
func launchFake(dir string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return launch(nil, dir, self, append([]string{nodeCommand, "-dir", dir}, args...)...)
}

// ready returns when /readyz is content. It asks every 5 ms.
func (p *process) ready(ctx context.Context) error {
	often := time.NewTicker(5 * time.Millisecond)
	defer often.Stop()
	var last error
	for {
		if _, last = p.get(ctx, "/readyz"); last == nil {
			return nil
		}
		select {
		case <-often.C:
		case <-p.done:
			return fmt.Errorf("it ended: %s\n%s", p.cmd.ProcessState, p.log)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", last)
		}
	}
}

// stop ends the process: in order, and by force when that takes too long. A second stop does nothing.
func (p *process) stop() error {
	p.CloseIdleConnections()
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
	case <-time.After(stopTime):
		err := p.cmd.Process.Kill()
		<-p.done
		return errors.Join(fmt.Errorf("process %d did not stop within %s", p.cmd.Process.Pid, stopTime), err, p.endDaemons())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("process %d ended with %d\n%s", p.cmd.Process.Pid, code, p.log)
	}
	return nil
}

// endDaemons ends what outlives a process that was killed: its Postgres and its libvirtd.
func (p *process) endDaemons() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	err := pgserver.Halt(ctx, filepath.Join(p.dir, "postgres"))
	raw, readErr := os.ReadFile(filepath.Join(p.dir, "libvirt", "libvirtd.pid"))
	if errors.Is(readErr, fs.ErrNotExist) {
		return err
	}
	pid, numErr := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err = errors.Join(err, readErr, numErr); err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); !errors.Is(err, syscall.ESRCH) {
		return err
	}
	return nil
}

// client speaks REST over a Unix socket.
type client struct{ *http.Client }

func newClient(socket string) client {
	return client{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// get returns a body that comes with 200.
func (c client) get(ctx context.Context, path string) ([]byte, error) {
	return c.do(ctx, http.MethodGet, path, nil)
}

func (c client) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var out bytes.Buffer
	err := c.into(ctx, &out, method, path, body)
	return out.Bytes(), err
}

// into reads a body that comes with 200 into a buffer, which it empties first.
func (c client) into(ctx context.Context, out *bytes.Buffer, method, path string, body any) error {
	out.Reset()
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://horcrux"+path, in)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, err = out.ReadFrom(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		text := out.Bytes()
		err = &statusError{res.StatusCode, fmt.Sprintf("%s %s: %s: %s", method, path, res.Status, text[:min(len(text), 500)])}
	}
	return err
}

// statusError is an answer other than 200.
type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return e.text }

// must sends a change, waits for the end of its operation, and wants it to have succeeded.
func (c client) must(ctx context.Context, method, path string, body any) (operation.View, error) {
	var op operation.View
	out, err := c.do(ctx, method, path, body)
	if err != nil {
		return op, err
	}
	if err := json.Unmarshal(out, &op); err != nil {
		return op, err
	}
	if op.State != operation.StateSucceeded {
		return op, fmt.Errorf("%s %s: the operation is %s: %s", method, path, op.State, out)
	}
	return op, nil
}
