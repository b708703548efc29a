package network

import (
	"math/big"
	"net/netip"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/network"
)

// first and choices: what nobody else on the node uses is looked for from 192.168.122.0/24, where libvirt's networks are
// everywhere, to 192.168.254.0/24.
const (
	first   = 122
	choices = 255 - first
)

// Free returns a gateway in a /24 that nothing on the node uses. Networks but `default` begin to look in different
// places, so that two that are made at once seldom want the same.
func Free(id uuid.UUID, h Host) (netip.Prefix, bool) {
	begin := 0
	if id.Version() == 7 {
		begin = 1 + int(id[15])%(choices-1)
	}
	for i := range choices {
		gateway := netip.AddrFrom4([4]byte{192, 168, byte(first + (begin+i)%choices), 1})
		if p := netip.PrefixFrom(gateway, 24); !h.Overlaps(p) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// largestRange is how many addresses libvirt gives by DHCP at most.
const largestRange = 65_000

// Lease is what DHCP gives in the range of a gateway: the longer part beside the gateway's own address, without the
// range's first and last.
func Lease(gateway netip.Prefix) (from, to netip.Addr) {
	low, high := number(gateway.Masked().Addr()), number(last(gateway))
	low, high = low.Add(low, one), high.Sub(high, one)
	g := number(gateway.Addr())
	if below, above := new(big.Int).Sub(g, low), new(big.Int).Sub(high, g); below.Cmp(above) > 0 {
		high.Sub(g, one)
	} else {
		low.Add(g, one)
	}
	if most := new(big.Int).Add(low, big.NewInt(largestRange-1)); high.Cmp(most) > 0 {
		high = most
	}
	return address(low, gateway.Addr()), address(high, gateway.Addr())
}

var one = big.NewInt(1)

// last address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b) // as long as it was
	return a
}

func number(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }

// address is a number as an address of the same family as another.
func address(n *big.Int, like netip.Addr) netip.Addr {
	a, _ := netip.AddrFromSlice(n.FillBytes(make([]byte, like.BitLen()/8))) // as long as the other
	return a
}

// Ranges are what a network takes of the node's addresses.
func Ranges(s wire.Spec) (out []netip.Prefix) {
	for _, p := range []*netip.Prefix{s.IPv4, s.IPv6} {
		if p != nil {
			out = append(out, *p)
		}
	}
	return out
}
