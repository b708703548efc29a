package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long each way of stopping may take before the next, harsher one. Postgres itself kills what ignores the second
// after five seconds.
const (
	fastLimit      = 30 * time.Second
	immediateLimit = 6 * time.Second
)

// process is a postmaster: a child of ours, or one that was taken over.
type process struct {
	pid    int
	handle *os.Process   // by pidfd, so that a signal cannot hit a later process of the same pid
	done   chan struct{} // closed when the process has ended and, if it was our child, was reaped
}

// spawn starts cmd as a child that outlives us.
func spawn(cmd *exec.Cmd) (*process, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{pid: cmd.Process.Pid, handle: cmd.Process, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		_ = cmd.Wait() // how it ended is in its own log; that it ended is what counts
	}()
	return p, nil
}

// watch takes over a process that is not our child. A process that has ended and that nobody reaps (PID 1 of a
// container may not) counts as ended.
func watch(pid int) (*process, error) {
	handle, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("take over process %d: %w", pid, err)
	}
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over process %d: %w", pid, err), handle.Release())
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	conn, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("take over process %d: %w", pid, err), file.Close(), handle.Release())
	}
	p := &process{pid: pid, handle: handle, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer file.Close() // it was only waited on
		// Read returns when the descriptor is readable, which is when the process has ended.
		_ = conn.Read(func(fd uintptr) bool {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
		})
	}()
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop ends the process by the mildest means that works in time and waits for its end. It is nil when the server shut
// down in order or had ended before.
func (p *process) stop(ctx context.Context) error {
	if p.ended() {
		return nil
	}
	fast, cancel := context.WithTimeout(ctx, fastLimit)
	defer cancel()
	err := p.signal(fast, syscall.SIGINT)
	if err == nil {
		return nil
	}
	immediate, cancel := context.WithTimeout(context.WithoutCancel(ctx), immediateLimit)
	defer cancel()
	if quitErr := p.signal(immediate, syscall.SIGQUIT); quitErr != nil {
		if killErr := p.signal(context.WithoutCancel(ctx), syscall.SIGKILL); killErr != nil {
			return killErr
		}
	}
	return fmt.Errorf("process %d was ended before its shutdown had finished, so its next start recovers: %w", p.pid, err)
}

// signal sends one signal and waits for the end of the process.
func (p *process) signal(ctx context.Context, sig syscall.Signal) error {
	if err := p.handle.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s to process %d: %w", sig, p.pid, err)
	}
	select {
	case <-p.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
