//go:build !no_qemu

package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Deadlines that end a wait at once, and none.
var past, never = time.Unix(1, 0), time.Time{}

// process is a daemon, our child or not. It is held by a file descriptor, so that its number cannot come to mean
// another process.
type process struct {
	pid    int
	handle *os.File
	reap   func() // nil if it is not our child
	once   sync.Once
	how    string // it ended, known of a child after reap
}

func hold(pid int, cmd *exec.Cmd) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open process %d: %w", pid, err)
	}
	p := &process{pid: pid, handle: os.NewFile(uintptr(fd), "pidfd"), how: "unknown"}
	if cmd != nil {
		p.reap = func() {
			p.once.Do(func() {
				p.how = "exit status 0"
				if err := cmd.Wait(); err != nil {
					p.how = err.Error()
				}
			})
		}
	}
	return p, nil
}

// find returns the process that holds the pid file locked, nil if none does. The file itself may be stale: what counts
// is the lock, which ends with its process.
func find(pidFile string) (*process, error) {
	f, err := os.OpenFile(pidFile, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pid file: %w", err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_WRLCK, Len: 1}
	if err := unix.FcntlFlock(f.Fd(), unix.F_GETLK, &lock); err != nil {
		return nil, fmt.Errorf("ask for the lock of %s: %w", pidFile, err)
	}
	if lock.Type == unix.F_UNLCK {
		return nil, nil
	}
	p, err := hold(int(lock.Pid), nil)
	if errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	return p, err
}

// wait returns true when the process has ended, false when ctx has.
func (p *process) wait(ctx context.Context) bool {
	ended := false
	conn, err := p.handle.SyscallConn()
	if err != nil {
		return true // it was ended and let go
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = p.handle.SetReadDeadline(past)
		close(interrupted)
	})
	defer func() {
		if !stop() {
			<-interrupted
			_ = p.handle.SetReadDeadline(never)
		}
	}()
	_ = conn.Read(func(fd uintptr) bool { // again whenever the descriptor becomes readable, which is at the end
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		ended = err == nil && n > 0
		return ended
	})
	if ended && p.reap != nil {
		p.reap()
	}
	return ended
}

// end asks the process to end, insists after stopTimeout, and lets go of it.
func (p *process) end(ctx context.Context) error {
	defer p.handle.Close()
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := p.signal(sig); err != nil {
			return err
		}
		patient, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		if deadline, ok := ctx.Deadline(); ok && sig == unix.SIGTERM {
			cancel()
			patient, cancel = context.WithDeadline(context.WithoutCancel(ctx), deadline)
		}
		ended := p.wait(patient)
		cancel()
		if ended {
			return nil
		}
	}
	return fmt.Errorf("process %d survives SIGKILL", p.pid)
}

func (p *process) signal(sig unix.Signal) error {
	conn, err := p.handle.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) })
	if errors.Is(sent, unix.ESRCH) {
		sent = nil
	}
	return errors.Join(err, sent)
}
