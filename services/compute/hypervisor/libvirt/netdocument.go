//go:build !no_qemu

package libvirt

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	lan "horcrux/pkg/events/network"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
)

// networkNamespace of our mark in a network's metadata.
const networkNamespace = "urn:horcrux:network:1"

const networkMark = `<horcrux:network xmlns:horcrux="` + networkNamespace + `"/>`

// networkDocument is the network XML of a definition. It fails with ErrInvalid.
func networkDocument(def network.Definition) (string, error) {
	n := &libvirtxml.Network{
		Name: def.Name, UUID: def.ID.String(), Metadata: &libvirtxml.NetworkMetadata{XML: networkMark},
		Bridge: &libvirtxml.NetworkBridge{Name: def.Bridge},
	}
	switch def.Mode {
	case lan.ModeBridge:
		n.Forward = &libvirtxml.NetworkForward{Mode: "bridge"}
	case lan.ModeNAT:
		n.Forward = &libvirtxml.NetworkForward{Mode: "nat"}
		if def.IPv6 != nil { // libvirt routes it otherwise, and nobody knows the way back
			n.Forward.NAT = &libvirtxml.NetworkForwardNAT{IPv6: "yes"}
		}
	case lan.ModeIsolated:
	default:
		return "", fmt.Errorf("%w: mode %q", hypervisor.ErrInvalid, def.Mode)
	}
	if def.Mode != lan.ModeBridge {
		n.Bridge.STP, n.Bridge.Delay = "on", "0"
	}
	for _, p := range network.Ranges(def.Spec) {
		ip := libvirtxml.NetworkIP{Address: p.Addr().String(), Prefix: uint(p.Bits())}
		if p.Addr().Is6() {
			ip.Family = "ipv6"
		}
		if def.DHCP {
			from, to := network.Lease(p)
			ip.DHCP = &libvirtxml.NetworkDHCP{Ranges: []libvirtxml.NetworkDHCPRange{{Start: from.String(), End: to.String()}}}
		}
		n.IPs = append(n.IPs, ip)
	}
	text, err := n.Marshal()
	if err != nil {
		return "", fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	return text, nil
}

// parseNetwork reads network XML, and says whether it carries our mark. What others have made can be more than a
// definition tells; a way of forwarding that is none of ours stays as libvirt calls it.
func parseNetwork(text string) (def network.Definition, ours bool, err error) {
	var n libvirtxml.Network
	if err := n.Unmarshal(text); err != nil {
		return def, false, fmt.Errorf("network document: %w", err)
	}
	if def.ID, err = uuid.Parse(n.UUID); err != nil {
		return def, false, fmt.Errorf("network document: %w", err)
	}
	def.Name, def.Mode = n.Name, lan.ModeIsolated
	if n.Forward != nil {
		def.Mode = n.Forward.Mode
		if def.Mode == "" {
			def.Mode = lan.ModeNAT // what libvirt takes it for
		}
	}
	if n.Bridge != nil {
		def.Bridge = n.Bridge.Name
	}
	for _, ip := range n.IPs {
		p, err := prefixOf(ip)
		if err != nil {
			return def, false, fmt.Errorf("network document: %w", err)
		}
		if p.Addr().Is4() && def.IPv4 == nil {
			def.IPv4 = &p
		} else if p.Addr().Is6() && def.IPv6 == nil {
			def.IPv6 = &p
		}
		def.DHCP = def.DHCP || ip.DHCP != nil && len(ip.DHCP.Ranges) > 0
	}
	return def, n.Metadata != nil && strings.Contains(n.Metadata.XML, networkNamespace), nil
}

// prefixOf an address, which has a length, an IPv4 netmask, or what its class says.
func prefixOf(ip libvirtxml.NetworkIP) (netip.Prefix, error) {
	a, err := netip.ParseAddr(ip.Address)
	if err != nil {
		return netip.Prefix{}, err
	}
	length := int(ip.Prefix)
	switch {
	case ip.Netmask != "":
		mask, err := netip.ParseAddr(ip.Netmask)
		if err != nil {
			return netip.Prefix{}, err
		}
		length, _ = net.IPMask(mask.AsSlice()).Size()
	case length == 0 && a.Is4():
		length, _ = net.IP(a.AsSlice()).DefaultMask().Size()
	case length == 0:
		length = 64
	}
	p := netip.PrefixFrom(a, length)
	if !p.IsValid() {
		return p, fmt.Errorf("%s has a prefix of %d bits", a, length)
	}
	return p, nil
}
