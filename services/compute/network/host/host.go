// Package host looks at what a node has of interfaces, addresses and routes.
package host

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"horcrux/services/compute/network"
)

// Look returns what the node has now. Default routes and what is of one link alone take no range.
func Look() (network.Host, error) {
	h := network.Host{Links: map[string]bool{}}
	links, err := net.Interfaces()
	if err != nil {
		return h, fmt.Errorf("interfaces: %w", err)
	}
	for _, link := range links {
		_, err := os.Stat(filepath.Join("/sys/class/net", link.Name, "bridge"))
		h.Links[link.Name] = err == nil
		addrs, err := link.Addrs()
		if err != nil {
			return h, fmt.Errorf("addresses of %s: %w", link.Name, err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				h.Used = use(h.Used, p.Masked(), "the node's interface "+link.Name)
			}
		}
	}
	for file, parse := range map[string]func(string) ([]netip.Prefix, error){"/proc/net/route": routes4, "/proc/net/ipv6_route": routes6} {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // a kernel without that protocol
		}
		if err != nil {
			return h, err
		}
		routes, err := parse(string(text))
		if err != nil {
			return h, fmt.Errorf("%s: %w", file, err)
		}
		for _, p := range routes {
			h.Used = use(h.Used, p, "a route of the node")
		}
	}
	return h, nil
}

func use(used []network.Use, p netip.Prefix, by string) []network.Use {
	if a := p.Addr(); p.Bits() == 0 || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return used
	}
	return append(used, network.Use{Prefix: p, By: by})
}

// routes4 reads /proc/net/route: a header, then lines whose second and eighth fields are address and mask as hexadecimal
// numbers in the machine's byte order.
func routes4(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) < 8 {
			continue
		}
		addr, err := strconv.ParseUint(f[1], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i, err)
		}
		mask, err := strconv.ParseUint(f[7], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i, err)
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(addr))
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), bits.OnesCount32(uint32(mask))))
	}
	return out, nil
}

// rejects is the flag of an IPv6 route that leads nowhere.
const rejects = 0x200

// routes6 reads /proc/net/ipv6_route: lines whose first two fields are an address and the length of its prefix, and
// whose ninth are flags, all hexadecimal.
func routes6(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if len(f) < 9 {
			continue
		}
		b, err := hex.DecodeString(f[0])
		if err != nil || len(b) != 16 {
			return nil, fmt.Errorf("line %d: address %q", i, f[0])
		}
		length, err := strconv.ParseUint(f[1], 16, 8)
		if err != nil || length > 128 {
			return nil, fmt.Errorf("line %d: prefix of %q", i, f[1])
		}
		flags, err := strconv.ParseUint(f[8], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("line %d: flags %q", i, f[8])
		}
		if flags&rejects == 0 {
			out = append(out, netip.PrefixFrom(netip.AddrFrom16([16]byte(b)), int(length)))
		}
	}
	return out, nil
}
