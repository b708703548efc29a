//go:build !no_qemu

// Package libvirt drives QEMU through a libvirt daemon on a Unix socket.
//
// The protocol library that it stands on knows no deadlines: a call returns when the daemon answers or the connection
// ends. So every call runs in a goroutine of its own, its caller leaves with the caller's context, and a call that is
// silent for Options.CallTimeout ends the connection, which ends all its calls. The next call dials again.
package libvirt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"horcrux/services/compute/hypervisor"
)

// Options of a driver. Only URI is required.
type Options struct {
	// URI of the daemon as virsh takes it: qemu:///system, qemu:///session, test:///default, with an optional
	// transport +unix and an optional ?socket=<path>. Other transports are refused.
	URI string
	// CallTimeout is how long the daemon may be silent on one call before the connection is given up, whatever the
	// caller's deadline. 0 means 60 s.
	CallTimeout time.Duration
	// DialTimeout bounds connecting and the first exchange. 0 means 5 s.
	DialTimeout time.Duration
	// Mutations is how many calls that change something are under way at once; the next wait here. The daemon works on
	// so many calls of a client and leaves the rest in the socket, looks among them, which then come too late. 0 means
	// 4, one fewer than a daemon's configuration grants unless it says otherwise.
	Mutations int
	// ConsoleDir, if set, is a folder on the node where each domain's serial console is written to <id>.log. Whoever sets
	// it bounds these files (package console).
	ConsoleDir string
	// Outside says where this process finds a file that the daemon names, whose places may be others. nil: the same path.
	Outside func(path string) string
	// Logger takes what is worth knowing about connections. nil discards.
	Logger *slog.Logger
}

// Driver is a hypervisor.Driver.
type Driver struct {
	opts   Options
	target target
	log    *slog.Logger
	life   context.Context // ends with Close
	end    context.CancelFunc
	dialer chan struct{} // holds one token while somebody dials

	once    sync.Once
	mu      sync.Mutex
	current *session
	// sessions counts those that are alive or still have calls to wait for. It grows only under the dialer's token.
	sessions sync.WaitGroup
}

var _ hypervisor.Driver = (*Driver)(nil)

// Open returns a driver. It does not connect: the daemon may come later.
func Open(opts Options) (*Driver, error) {
	target, err := parse(opts.URI)
	if err != nil {
		return nil, fmt.Errorf("libvirt: %w", err)
	}
	if opts.CallTimeout == 0 {
		opts.CallTimeout = time.Minute
	}
	if opts.DialTimeout == 0 {
		opts.DialTimeout = 5 * time.Second
	}
	if opts.Mutations == 0 {
		opts.Mutations = 4
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	life, end := context.WithCancel(context.Background())
	return &Driver{
		opts: opts, target: target, log: opts.Logger.With("libvirt", opts.URI),
		life: life, end: end, dialer: make(chan struct{}, 1),
	}, nil
}

// Close implements hypervisor.Driver.
func (d *Driver) Close() error {
	d.once.Do(func() {
		d.end()
		d.dialer <- struct{}{} // for good: nobody dials any more
		if s := d.live(); s != nil {
			s.drop()
		}
	})
	d.sessions.Wait()
	return nil
}

// outcome says what a call that was cut off leaves behind.
type outcome int

const (
	look  outcome = iota // nothing: it only observes
	act                  // perhaps its effect
	force                // as act, but does not wait for acts: it ends a guest, for which the daemon has workers apart
)

// call makes one call to the daemon.
func call[T any](ctx context.Context, d *Driver, o outcome, f func(*golibvirt.Libvirt) (T, error)) (T, error) {
	s, err := d.session(ctx)
	if err != nil {
		var none T
		return none, err
	}
	return exchange(ctx, s, o, f)
}

// do is call for an act that answers with nothing.
func (d *Driver) do(ctx context.Context, f func(*golibvirt.Libvirt) error) error {
	return d.doAs(ctx, act, f)
}

func (d *Driver) doAs(ctx context.Context, o outcome, f func(*golibvirt.Libvirt) error) error {
	_, err := call(ctx, d, o, func(l *golibvirt.Libvirt) (struct{}, error) { return struct{}{}, f(l) })
	return err
}

// session returns the live connection, dialling if there is none.
func (d *Driver) session(ctx context.Context) (*session, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case d.life.Err() != nil:
		return nil, errClosed
	}
	if s := d.live(); s != nil {
		return s, nil
	}
	select {
	case d.dialer <- struct{}{}:
		defer func() { <-d.dialer }()
	case <-ctx.Done():
		return nil, cut(ctx, look)
	case <-d.life.Done():
		return nil, errClosed
	}
	if s := d.live(); s != nil { // somebody else dialled meanwhile
		return s, nil
	}
	s, err := d.dial(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.current = s
	return s, nil
}

var errClosed = fmt.Errorf("%w: the driver is closed", hypervisor.ErrUnavailable)

// live returns the connection if there is one that is whole, else nil.
func (d *Driver) live() *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.current == nil || d.current.broken() {
		return nil
	}
	return d.current
}

// cut is the error of a call that ctx ended.
func cut(ctx context.Context, o outcome) error {
	switch {
	case o != look:
		return fmt.Errorf("%w: %w", hypervisor.ErrUnknown, ctx.Err())
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", hypervisor.ErrUnavailable, ctx.Err())
	}
	return ctx.Err()
}
