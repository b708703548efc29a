package network

import (
	"fmt"
	"net/netip"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/network"
	"horcrux/pkg/problem"
)

// Host is what a node has already, and a new network has to keep clear of.
type Host struct {
	// Links are the names of the node's interfaces, and those that networks want; true where it is a bridge that is
	// there.
	Links map[string]bool
	Used  []Use
}

// Use is a range of addresses that is taken, and by what.
type Use struct {
	Prefix netip.Prefix
	By     string
}

// overlap returns the first use that a range collides with.
func (h Host) overlap(p netip.Prefix) (Use, bool) {
	for _, u := range h.Used {
		if u.Prefix.Overlaps(p) {
			return u, true
		}
	}
	return Use{}, false
}

// Overlaps says whether a range collides with anything on the node.
func (h Host) Overlaps(p netip.Prefix) bool {
	_, taken := h.overlap(p)
	return taken
}

// BridgeName is the name of the bridge that the node makes for a network, always the same. Interfaces have at most 15
// characters; the last 32 bits of an id are random.
func BridgeName(id uuid.UUID) string { return fmt.Sprintf("virbr-%x", id[12:]) }

// Plan fills in what a request leaves open, and says what of it the node cannot have.
func Plan(id uuid.UUID, d wire.CreateData, h Host) (wire.Spec, []problem.Field) {
	p := &plan{host: h, spec: wire.Spec{Name: d.Name, Mode: d.Mode, Bridge: d.Bridge}}
	switch d.Mode {
	case wire.ModeBridge:
		p.bridged(d)
	case wire.ModeNAT, wire.ModeIsolated:
		p.own(id, d)
	default:
		p.refuse("mode", "must be nat, isolated or bridge")
	}
	return p.spec, p.fields
}

type plan struct {
	host   Host
	spec   wire.Spec
	fields []problem.Field
}

func (p *plan) refuse(field, format string, args ...any) {
	p.fields = append(p.fields, problem.Field{Field: field, Detail: fmt.Sprintf(format, args...)})
}

// bridged is a network on a bridge of somebody else, who gives addresses there.
func (p *plan) bridged(d wire.CreateData) {
	switch there, taken := p.host.Links[d.Bridge]; {
	case d.Bridge == "":
		p.refuse("bridge", "is required in mode bridge")
	case taken && !there:
		p.refuse("bridge", "%s is not a bridge; give the bridge that it is a port of", d.Bridge)
	case !there:
		p.refuse("bridge", "the node has no bridge %s; make it first, with: ip link add %s type bridge", d.Bridge, d.Bridge)
	}
	const foreign = "is not ours to give in mode bridge; leave it out"
	if d.IPv4 != nil {
		p.refuse("ipv4", foreign)
	}
	if d.IPv6 != nil {
		p.refuse("ipv6", foreign)
	}
	if d.DHCP != nil && *d.DHCP {
		p.refuse("dhcp", foreign)
	}
}

// own is a network on a bridge that is made for it.
func (p *plan) own(id uuid.UUID, d wire.CreateData) {
	if d.Bridge == "" {
		p.spec.Bridge = BridgeName(id)
	}
	if _, taken := p.host.Links[p.spec.Bridge]; taken {
		p.refuse("bridge", "the node has %s already; leave it out, or choose another name", p.spec.Bridge)
	}
	if d.IPv4 != nil {
		p.spec.IPv4 = p.prefix("ipv4", *d.IPv4)
	}
	if d.IPv6 != nil {
		p.spec.IPv6 = p.prefix("ipv6", *d.IPv6)
	}
	if d.Mode == wire.ModeNAT && d.IPv4 == nil && d.IPv6 == nil {
		if free, ok := Free(id, p.host); ok {
			p.spec.IPv4, p.spec.Chosen = &free, true
		} else {
			p.refuse("ipv4", "no /24 between 192.168.122.0 and 192.168.254.0 is free; give a range")
		}
	}
	addressed := d.IPv4 != nil || d.IPv6 != nil || p.spec.Chosen
	p.spec.DHCP = addressed
	if d.DHCP != nil {
		p.spec.DHCP = *d.DHCP
	}
	if p.spec.DHCP && !addressed {
		p.refuse("dhcp", "needs ipv4 or ipv6")
	}
}

// prefix reads the address of a gateway with its range. A range alone means its first address.
func (p *plan) prefix(field, text string) *netip.Prefix {
	least, most, example := 8, 30, "192.168.130.1/24"
	if field == "ipv6" {
		least, most, example = 64, 120, "fd00:130::1/64"
	}
	c, err := netip.ParsePrefix(text)
	switch {
	case err != nil || c.Addr().Is4() != (field == "ipv4") || c.Addr().Is4In6():
		p.refuse(field, "must be the gateway's address with the length of its prefix, such as %s", example)
		return nil
	case c.Bits() < least || c.Bits() > most:
		p.refuse(field, "must have a prefix of %d to %d bits, such as %s", least, most, example)
		return nil
	}
	if a := c.Addr(); a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || field == "ipv4" && (a.As4()[0] == 0 || a.As4()[0] >= 224) {
		p.refuse(field, "must be of a range for hosts, such as %s", example)
		return nil
	}
	if c == c.Masked() {
		c = netip.PrefixFrom(c.Addr().Next(), c.Bits())
	}
	if field == "ipv4" && c.Addr() == last(c) {
		p.refuse(field, "is the broadcast address of its range; give another, such as %s", c.Masked().Addr().Next())
		return nil
	}
	if u, taken := p.host.overlap(c); taken {
		p.refuse(field, "overlaps %s of %s; choose another range", u.Prefix, u.By)
		return nil
	}
	return &c
}
