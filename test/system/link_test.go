package system_test

import (
	"context"
	bits "encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// host is a network namespace of a test, with one interface whose other end is on this machine.
type host struct {
	*testing.T
	name string // of the namespace
	near string // the end that is here
	far  string // the end that is there
}

// newHost makes a namespace. It goes with the test, whatever becomes of that.
func newHost(t *testing.T) *host {
	t.Helper()
	tag := uuid.NewString()[:8]
	h := &host{T: t, name: "hx-" + tag, near: "hxn" + tag, far: "hxf" + tag}
	t.Cleanup(func() { // its interface goes with it, and with that the other end
		if out, err := ip("netns", "delete", h.name); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	h.ip("netns", "add", h.name)
	h.ip("link", "add", h.near, "type", "veth", "peer", "name", h.far, "netns", h.name)
	h.ip("link", "set", h.near, "up")
	h.in("ip", "link", "set", "lo", "up")
	h.in("ip", "link", "set", h.far, "up")
	return h
}

func ip(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "ip", args...).CombinedOutput()
	return string(out), err
}

func (h *host) ip(args ...string) {
	h.Helper()
	if out, err := ip(args...); err != nil {
		h.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// in runs a command in the namespace.
func (h *host) in(args ...string) string {
	h.Helper()
	out, err := ip(append([]string{"netns", "exec", h.name}, args...)...)
	if err != nil {
		h.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// joins makes the end that is here a port of a bridge.
func (h *host) joins(bridge string) {
	h.Helper()
	h.ip("link", "set", h.near, "master", bridge)
}

var leased = regexp.MustCompile(`lease of (\S+) obtained`)

// lease asks for an IPv4 address, as a guest would, and takes it, with a way to the gateway.
func (h *host) lease(gateway netip.Prefix) netip.Addr {
	h.Helper()
	out := h.in("busybox", "udhcpc", "-i", h.far, "-f", "-n", "-q", "-t", "20", "-s", "/bin/true")
	m := leased.FindStringSubmatch(out)
	if m == nil {
		h.Fatalf("no lease: %s", out)
	}
	a := netip.MustParseAddr(m[1])
	h.has(netip.PrefixFrom(a, gateway.Bits()), gateway.Addr())
	return a
}

// has gives the far end an address and a way to everywhere.
func (h *host) has(a netip.Prefix, gateway netip.Addr) {
	h.Helper()
	family := "-4"
	args := []string{"ip", family, "address", "add", a.String(), "dev", h.far}
	if a.Addr().Is6() {
		args[1], family = "-6", "-6"
		args = append(args, "nodad")
	}
	h.in(args...)
	h.in("ip", family, "route", "replace", "default", "via", gateway.String(), "dev", h.far)
}

// reaches says whether an address answers within a few seconds.
func (h *host) reaches(a netip.Addr) bool {
	_, err := ip("netns", "exec", h.name, "busybox", "ping", "-c", "3", "-w", "5", a.String())
	return err == nil
}

// advertised asks all DHCPv6 servers on the link for an address, and returns the one that it is offered.
func (h *host) advertised() netip.Addr {
	h.Helper()
	var offer netip.Addr
	var err error
	for range 20 { // until the link has its own address, and the server has noticed the link
		if offer, err = h.solicit(); err == nil {
			return offer
		}
		time.Sleep(500 * time.Millisecond)
	}
	h.Fatalf("no DHCPv6: %v", err)
	return offer
}

// The message types and options of DHCPv6 (RFC 8415).
const (
	solicit, advertise       = 1, 2
	clientID, iaNA, iaAddr   = 1, 3, 5
	serverPort, clientPort   = 547, 546
	allServers, exchangeTime = "ff02::1:2", 2 * time.Second
)

// solicit makes one exchange, from a socket of the namespace.
func (h *host) solicit() (netip.Addr, error) {
	var none netip.Addr
	conn, err := h.socket()
	if err != nil {
		return none, err
	}
	defer conn.Close()
	option := func(code uint16, body []byte) []byte {
		b := bits.BigEndian.AppendUint16(nil, code)
		return append(bits.BigEndian.AppendUint16(b, uint16(len(body))), body...)
	}
	duid := []byte{0, 4, 15: 1, 17: 2} // by UUID
	message := append([]byte{solicit, 'h', 'x', '1'}, option(clientID, duid)...)
	message = append(message, option(iaNA, make([]byte, 12))...)
	to := &net.UDPAddr{IP: net.ParseIP(allServers), Port: serverPort, Zone: h.far}
	if _, err := conn.WriteTo(message, to); err != nil {
		return none, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(exchangeTime)); err != nil {
		return none, err
	}
	b := make([]byte, 2048)
	n, _, err := conn.ReadFrom(b)
	if err != nil {
		return none, err
	}
	if n < 4 || b[0] != advertise {
		return none, fmt.Errorf("answered with %x", b[:n])
	}
	for o := b[4:n]; len(o) >= 4; {
		code, size := bits.BigEndian.Uint16(o), int(bits.BigEndian.Uint16(o[2:]))
		body := o[4:]
		if size > len(body) {
			break
		}
		if code == iaNA && size >= 32 && bits.BigEndian.Uint16(body[12:]) == iaAddr {
			return netip.AddrFrom16([16]byte(body[16:32])), nil
		}
		o = body[size:]
	}
	return none, fmt.Errorf("offered nothing: %x", b[:n])
}

// socket opens one in the namespace, from a thread that ends with its goroutine.
func (h *host) socket() (conn net.PacketConn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var f *os.File
		if f, err = os.Open("/run/netns/" + h.name); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", clientPort))
		}
	}()
	<-done
	return conn, err
}
