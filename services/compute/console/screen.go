package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/pkg/bus"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// Whether a guest still runs is asked again and again for a while.
const (
	lookTime  = 2 * time.Second
	lookAgain = 50 * time.Millisecond
)

// screen is a connection to the hypervisor's RFB server.
type screen struct {
	*Service
	net.Conn
	open vm.OpenConsole
}

func reachScreen(ctx context.Context, s *Service, o vm.OpenConsole, path string) (*screen, error) {
	conn, err := dial(ctx, path)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, problem.New(problem.InvalidState, "the virtual machine has just stopped")
	}
	if err != nil {
		return nil, fmt.Errorf("screen: %w", err)
	}
	return &screen{s, conn, o}, nil
}

// dial connects to a Unix socket whose path may be longer than the 107 bytes that the kernel takes.
func dial(ctx context.Context, path string) (net.Conn, error) {
	dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path)))
}

func (s *screen) close() { s.Conn.Close() } // it was only asked for

func (s *screen) carry(ctx context.Context, p *bus.Pipe) {
	var to io.Writer = s.Conn
	if s.open.ReadOnly {
		to = &watcher{to: s.Conn}
	}
	told, shown := make(chan error, 1), make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		_, err := io.Copy(to, p)
		told <- err
	})
	moving.Go(func() {
		_, _ = io.Copy(p, s.Conn) // it ends with either end
		close(shown)
	})
	var why *problem.Problem
	select {
	case <-ctx.Done():
		why = leaving()
	case <-p.Done():
	case err := <-told: // of the hypervisor's end, the other direction tells too
		why = problem.From(err)
	case <-shown:
		why = s.closed(ctx)
	}
	ended(s.Log, p, why)
	s.close()
	moving.Wait()
}

// closed says why the hypervisor closed the connection; nil if the guest has stopped, of which its daemon may know later.
func (s *screen) closed(ctx context.Context) *problem.Problem {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		if at, err := s.Driver.Consoles(ctx, s.open.VM); err != nil || !at.Active {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return problem.New(problem.InvalidState, "the hypervisor closed the connection: it refused the viewer, or another one asked for the screen alone")
		}
	}
}
