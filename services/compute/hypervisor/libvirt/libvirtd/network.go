//go:build !no_qemu

package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// with connects for the length of f. The ctx ends the connection, and with it any call.
func (d *Daemon) with(ctx context.Context, f func(*golibvirt.Libvirt) error) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", d.Socket())
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	l := golibvirt.NewWithDialer(dialed{conn})
	if err := l.ConnectToURI(golibvirt.ConnectURI("qemu://" + d.path())); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return f(l)
}

type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }

// answers polls until the daemon talks about QEMU, its process ends, or ctx does.
func (d *Daemon) answers(ctx context.Context, p *process) error {
	ctx, ended := context.WithCancelCause(ctx)
	defer ended(nil)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if p.wait(ctx) {
			ended(errors.New("it ended"))
		}
	}()
	defer func() { ended(nil); <-watching }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := d.with(ctx, func(l *golibvirt.Libvirt) error { _, err := l.ConnectGetVersion(); return err })
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("does not answer: %w: %w", context.Cause(ctx), err)
		}
	}
}

// dismantle takes the networks down when no guest runs that may be on one.
func (d *Daemon) dismantle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.with(ctx, func(l *golibvirt.Libvirt) error {
		running, err := l.ConnectNumOfDomains()
		if err != nil || running > 0 {
			return err
		}
		active, _, err := l.ConnectListAllNetworks(1, golibvirt.ConnectListNetworksActive)
		if err != nil {
			return err
		}
		var failed []error
		for _, n := range active {
			failed = append(failed, l.NetworkDestroy(n))
		}
		return errors.Join(failed...)
	})
}
