//go:build !no_qemu

package libvirtd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// networkName is the network that a guest is on when nothing else is said.
const networkName = "default"

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

// network brings the network up as well as it can, and remembers why not.
func (d *Daemon) network(ctx context.Context) {
	var err error
	switch {
	case d.opts.NoNetwork:
		err = errors.New("not wanted")
	case d.session:
		err = errors.New("a session daemon may not make bridges")
	default:
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err = d.with(ctx, raiseNetwork); err != nil {
			d.log.Warn("no network", "network", networkName, "error", err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.networkErr = err
}

// raiseNetwork defines and starts the network, where something has taken its bridge or addresses meanwhile with others.
func raiseNetwork(l *golibvirt.Libvirt) error {
	n, err := l.NetworkLookupByName(networkName)
	if err == nil {
		if active, err := l.NetworkIsActive(n); err != nil || active != 0 {
			return err
		}
		if l.NetworkCreate(n) == nil {
			return nil
		}
	}
	var failed []error
	for range 4 { // somebody may take what was free a moment ago
		text, err := freeNetwork()
		if err != nil {
			return errors.Join(append(failed, err)...)
		}
		n, err := l.NetworkDefineXML(text)
		if err != nil {
			return fmt.Errorf("define: %w", err)
		}
		if err = l.NetworkCreate(n); err == nil {
			return l.NetworkSetAutostart(n, 1)
		}
		failed = append(failed, fmt.Errorf("start: %w", err))
		if err := l.NetworkUndefine(n); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	return errors.Join(failed...)
}

// freeNetwork is a NAT network on the first bridge name and /24 that nothing on this host uses: virbr0 and
// 192.168.122.0/24 as everywhere, else the next names and 192.168.123.0 to 192.168.254.0.
func freeNetwork() (string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return "", err
	}
	names := map[string]bool{}
	var used []netip.Prefix
	for _, link := range links {
		names[link.Name] = true
		addrs, err := link.Addrs()
		if err != nil {
			return "", err
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				used = append(used, p.Masked())
			}
		}
	}
	routed, err := routes()
	if err != nil {
		return "", err
	}
	used = append(used, routed...)

	bridge := ""
	for i := 0; bridge == ""; i++ {
		if name := fmt.Sprintf("virbr%d", i); !names[name] {
			bridge = name
		}
	}
	for third := byte(122); third < 255; third++ {
		subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, third, 0}), 24)
		if overlaps(subnet, used) {
			continue
		}
		at := func(last byte) string { return netip.AddrFrom4([4]byte{192, 168, third, last}).String() }
		n := libvirtxml.Network{
			Name:    networkName,
			Forward: &libvirtxml.NetworkForward{Mode: "nat"},
			Bridge:  &libvirtxml.NetworkBridge{Name: bridge, STP: "on", Delay: "0"},
			IPs: []libvirtxml.NetworkIP{{
				Address: at(1), Netmask: "255.255.255.0",
				DHCP: &libvirtxml.NetworkDHCP{Ranges: []libvirtxml.NetworkDHCPRange{{Start: at(2), End: at(254)}}},
			}},
		}
		return n.Marshal()
	}
	return "", errors.New("no free /24 between 192.168.122.0 and 192.168.254.0")
}

func overlaps(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		if p.Overlaps(u) {
			return true
		}
	}
	return false
}

// dismantle takes the network down when no guest runs that may be on it.
func (d *Daemon) dismantle(ctx context.Context) error {
	if d.networkErr != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return d.with(ctx, func(l *golibvirt.Libvirt) error {
		running, err := l.ConnectNumOfDomains()
		if err != nil || running > 0 {
			return err
		}
		n, err := l.NetworkLookupByName(networkName)
		if err != nil {
			return err
		}
		if active, err := l.NetworkIsActive(n); err != nil || active == 0 {
			return err
		}
		return l.NetworkDestroy(n)
	})
}
