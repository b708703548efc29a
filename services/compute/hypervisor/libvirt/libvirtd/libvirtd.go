//go:build !no_qemu

// Package libvirtd runs a private libvirt daemon: configuration, state and sockets of its own below one folder, the
// host's untouched. As root it lives in a mount namespace where that folder appears in the places that libvirt was
// built for; otherwise it is a session daemon. It outlives us: kill -9 leaves it and its guests running, and the next
// Start adopts it.
package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options of a daemon.
type Options struct {
	// Dir holds configuration, state and log. It is the identity of the daemon: whoever starts with the same folder
	// finds the same daemon, guests and networks. Absolute.
	Dir string
	// SocketDir holds the sockets, reachable from outside the namespace. Absolute, short: see MaxSocketPath.
	SocketDir string
	// KVM lets guests use /dev/kvm. Without it the daemon does not see the device: where it exists and does not
	// work, libvirt would probe QEMU for seconds again and again.
	KVM bool
	// User and Group run QEMU. "" picks the distribution's account for it, or root where that account cannot look
	// into Dir (and then probably into no folder beside it). Without root it is always ourselves.
	User, Group string
	// Path of the daemon's binary. "" looks in PATH and the sbin folders.
	Path string
	// Logger takes what happens. nil discards.
	Logger *slog.Logger
}

// MaxSocketPath is the longest path of a Unix socket, in bytes, that Linux takes (sun_path with its NUL is 108).
const MaxSocketPath = 107

const (
	readyTimeout = 60 * time.Second // the first start probes QEMU
	stopTimeout  = 20 * time.Second
	adoptTimeout = 10 * time.Second // how long a daemon that we find may take to answer
)

// Daemon is a running private libvirtd. It is started again when it dies.
type Daemon struct {
	opts    Options
	log     *slog.Logger
	argv    []string
	env     []string
	session bool
	adopted bool

	stop context.CancelFunc // ends the supervision
	done chan struct{}      // closed when it has ended

	mu      sync.Mutex
	process *process
	deaths  []string
}

// Start adopts the live daemon of this folder, or starts one, and returns when it answers. The ctx bounds only the
// start. The daemon then runs until Stop, also beyond the end of this process.
func Start(ctx context.Context, opts Options) (*Daemon, error) {
	d, err := prepare(opts)
	if err != nil {
		return nil, fmt.Errorf("libvirtd: %w", err)
	}
	if err := d.adopt(ctx); err != nil {
		return nil, fmt.Errorf("libvirtd: %w", err)
	}
	if d.process == nil {
		if err := d.launch(ctx); err != nil {
			return nil, fmt.Errorf("libvirtd: %w", err)
		}
	}
	life, stop := context.WithCancel(context.Background())
	d.stop, d.done = stop, make(chan struct{})
	go func() {
		defer close(d.done)
		d.supervise(life)
	}()
	return d, nil
}

func prepare(opts Options) (*Daemon, error) {
	d := &Daemon{opts: opts, log: opts.Logger, session: os.Geteuid() != 0}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{opts.Dir, opts.SocketDir} {
		if !filepath.IsAbs(dir) || strings.ContainsAny(dir, "\"\n\\") {
			return nil, fmt.Errorf("folder %q: not absolute, or with a quote, backslash or line break", dir)
		}
	}
	if err := d.fits(); err != nil {
		return nil, err
	}
	if opts.Path == "" {
		path, err := findBinary()
		if err != nil {
			return nil, err
		}
		d.opts.Path = path
	}
	return d, d.configure()
}

// fits checks the longest socket paths.
func (d *Daemon) fits() error {
	longest := filepath.Join(d.opts.SocketDir, "libvirt-admin-sock")
	if monitor := d.monitorSocket(); d.session && len(monitor) > len(longest) {
		longest = monitor
	}
	if len(longest) > MaxSocketPath {
		return fmt.Errorf("socket %s: %d bytes, Linux takes %d: choose a shorter folder", longest, len(longest), MaxSocketPath)
	}
	return nil
}

// monitorSocket is the longest path of a QEMU monitor of a session daemon. Names are cut to 20 characters by libvirt.
func (d *Daemon) monitorSocket() string {
	return filepath.Join(d.opts.Dir, "libvirt/qemu/lib", "domain-99999-"+strings.Repeat("n", 20), "monitor.sock")
}

// Socket is the path of the read-write socket.
func (d *Daemon) Socket() string { return filepath.Join(d.opts.SocketDir, "libvirt-sock") }

// URI reaches the daemon, with virsh -c for instance.
func (d *Daemon) URI() string {
	return "qemu+unix://" + d.path() + "?socket=" + url.QueryEscape(d.Socket())
}

// path of the URI.
func (d *Daemon) path() string {
	if d.session {
		return "/session"
	}
	return "/system"
}

// Adopted says whether Start found the daemon running.
func (d *Daemon) Adopted() bool { return d.adopted }

// PID of the daemon now; 0 while it is down.
func (d *Daemon) PID() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil {
		return 0
	}
	return d.process.pid
}

// Deaths says how the daemon ended each time that it ended by itself; "unknown" of one that was adopted.
func (d *Daemon) Deaths() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.deaths)
}

// Stop ends the supervision and the daemon. Guests that run go on, with their networks; without any the networks are
// taken down too, so that nothing of ours is left on the host.
func (d *Daemon) Stop(ctx context.Context) error {
	d.stop()
	<-d.done
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil {
		return nil
	}
	if err := d.dismantle(ctx); err != nil {
		d.log.Warn("the networks stay", "error", err)
	}
	if err := d.process.end(ctx); err != nil {
		return fmt.Errorf("libvirtd: %w", err)
	}
	d.process = nil
	return nil
}

// adopt takes over a daemon that holds the lock of the pid file, if it answers and was started as we would start it.
// Otherwise it is ended, which harms no guest.
func (d *Daemon) adopt(ctx context.Context) error {
	p, err := find(d.pidFile())
	if err != nil || p == nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout+stopTimeout)
	defer cancel()
	if d.startedAlike() {
		asking, cancel := context.WithTimeout(ctx, adoptTimeout)
		defer cancel()
		if err = d.answers(asking, p); err == nil {
			d.process, d.adopted = p, true
			d.log.Info("adopted libvirtd", "pid", p.pid)
			return nil
		}
	}
	d.log.Warn("ending a libvirtd that cannot be adopted", "pid", p.pid, "error", err)
	return p.end(ctx)
}

// launch starts the daemon and waits until it answers.
func (d *Daemon) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	p, err := d.spawn()
	if err != nil {
		return err
	}
	if err := d.answers(ctx, p); err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		return errors.Join(fmt.Errorf("%w; the end of %s:\n%s", err, d.logFile(), tail(d.logFile())), p.end(end))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.process = p
	d.log.Info("started libvirtd", "pid", p.pid, "socket", d.Socket())
	return nil
}

// supervise starts the daemon again whenever it ends.
func (d *Daemon) supervise(ctx context.Context) {
	const least, most = time.Second, 30 * time.Second
	for pause := least; ; pause = min(2*pause, most) {
		began := time.Now()
		if d.process != nil && !d.process.wait(ctx) || ctx.Err() != nil {
			return
		}
		how := d.died()
		if time.Since(began) > most {
			pause = least
		}
		d.log.Error("libvirtd ended, it will be started again", "how", how, "after", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if err := d.launch(ctx); err != nil {
			d.log.Error("libvirtd does not start", "error", err)
		}
	}
}

// died takes in that the process has ended, if there was one, and says how.
func (d *Daemon) died() (how string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.process == nil {
		return "it did not start"
	}
	how, d.process = d.process.how, nil
	const remembered = 10
	d.deaths = append(d.deaths[max(0, len(d.deaths)-remembered+1):], how)
	return how
}
