package network_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/network"
	"horcrux/services/compute/network"
)

var host = network.Host{
	Links: map[string]bool{"eth0": false, "br0": true},
	Used: []network.Use{
		{Prefix: netip.MustParsePrefix("10.0.0.0/8"), By: "a route of the node"},
		{Prefix: netip.MustParsePrefix("192.168.122.0/24"), By: "the network other"},
		{Prefix: netip.MustParsePrefix("fd00::/64"), By: "the node's interface eth0"},
	},
}

func TestPlan(t *testing.T) {
	id := uuid.MustParse("01900000-0000-7000-8000-0000deadbeef")
	text := func(s string) *string { return &s }
	yes, not := true, false
	nat := func(v4, v6 string) wire.CreateData {
		d := wire.CreateData{Name: "lan", Mode: wire.ModeNAT}
		if v4 != "" {
			d.IPv4 = &v4
		}
		if v6 != "" {
			d.IPv6 = &v6
		}
		return d
	}
	for _, c := range []struct {
		name  string
		d     wire.CreateData
		want  string // bridge ipv4 ipv6 dhcp
		field string
		says  string
	}{
		{name: "nat with both", d: nat("192.168.130.1/24", "fd00:130::1/64"), want: "virbr-deadbeef 192.168.130.1/24 fd00:130::1/64 true"},
		{name: "a range is its first address", d: nat("192.168.130.0/24", "fd00:130::/64"), want: "virbr-deadbeef 192.168.130.1/24 fd00:130::1/64 true"},
		{name: "any address of the range", d: nat("192.168.130.254/24", ""), want: "virbr-deadbeef 192.168.130.254/24 - true"},
		{name: "no range is the node's choice", d: nat("", ""), want: "virbr-deadbeef 192.168.230.1/24 - true"},
		{name: "IPv6 alone", d: nat("", "fd00:130::1/64"), want: "virbr-deadbeef - fd00:130::1/64 true"},
		{name: "without DHCP", d: wire.CreateData{Mode: wire.ModeNAT, DHCP: &not, IPv4: text("172.20.0.1/16")}, want: "virbr-deadbeef 172.20.0.1/16 - false"},
		{name: "isolated without addresses", d: wire.CreateData{Mode: wire.ModeIsolated}, want: "virbr-deadbeef - - false"},
		{name: "a bridge of one's own name", d: wire.CreateData{Mode: wire.ModeIsolated, Bridge: "lab0"}, want: "lab0 - - false"},
		{name: "bridge", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "br0", DHCP: &not}, want: "br0 - - false"},

		{name: "no mode", d: wire.CreateData{}, field: "mode", says: "nat"},
		{name: "bridge of no name", d: wire.CreateData{Mode: wire.ModeBridge}, field: "bridge", says: "required"},
		{name: "bridge that is not there", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "br9"}, field: "bridge", says: "ip link add br9 type bridge"},
		{name: "bridge that is none", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "eth0"}, field: "bridge", says: "not a bridge"},
		{name: "bridge with addresses", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "br0", IPv4: text("192.168.130.1/24")}, field: "ipv4", says: "leave it out"},
		{name: "bridge with IPv6", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "br0", IPv6: text("fd00:130::1/64")}, field: "ipv6", says: "leave it out"},
		{name: "bridge with DHCP", d: wire.CreateData{Mode: wire.ModeBridge, Bridge: "br0", DHCP: &yes}, field: "dhcp", says: "leave it out"},
		{name: "the name of a link", d: wire.CreateData{Mode: wire.ModeIsolated, Bridge: "eth0"}, field: "bridge", says: "already"},
		{name: "DHCP of nothing", d: wire.CreateData{Mode: wire.ModeIsolated, DHCP: &yes}, field: "dhcp", says: "needs"},
		{name: "a route", d: nat("10.1.2.1/24", ""), field: "ipv4", says: "10.0.0.0/8 of a route of the node"},
		{name: "a part of a network", d: nat("192.168.122.129/25", ""), field: "ipv4", says: "the network other"},
		{name: "more than a network", d: nat("192.168.0.1/16", ""), field: "ipv4", says: "the network other"},
		{name: "an interface", d: nat("", "fd00::5/64"), field: "ipv6", says: "eth0"},
		{name: "no prefix", d: nat("192.168.130.1", ""), field: "ipv4", says: "192.168.130.1/24"},
		{name: "IPv6 for IPv4", d: nat("fd00:130::1/64", ""), field: "ipv4", says: "192.168.130.1/24"},
		{name: "IPv4 for IPv6", d: nat("", "192.168.130.1/24"), field: "ipv6", says: "fd00:130::1/64"},
		{name: "IPv4 within IPv6", d: nat("", "::ffff:192.168.130.1/120"), field: "ipv6", says: "fd00:130::1/64"},
		{name: "no host", d: nat("192.168.130.1/31", ""), field: "ipv4", says: "8 to 30"},
		{name: "all hosts", d: nat("0.0.0.0/0", ""), field: "ipv4", says: "8 to 30"},
		{name: "too short for DHCPv6", d: nat("", "fd00:130::1/48"), field: "ipv6", says: "64 to 120"},
		{name: "broadcast", d: nat("192.168.130.255/24", ""), field: "ipv4", says: "broadcast"},
		{name: "loopback", d: nat("127.0.0.1/8", ""), field: "ipv4", says: "range for hosts"},
		{name: "multicast", d: nat("224.0.0.1/24", ""), field: "ipv4", says: "range for hosts"},
		{name: "of the link", d: nat("", "fe80::1/64"), field: "ipv6", says: "range for hosts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec, fields := network.Plan(id, c.d, host)
			if c.field != "" {
				if len(fields) != 1 || fields[0].Field != c.field || !strings.Contains(fields[0].Detail, c.says) {
					t.Errorf("refused with %+v", fields)
				}
				return
			}
			show := func(p *netip.Prefix) string {
				if p == nil {
					return "-"
				}
				return p.String()
			}
			got := strings.Join([]string{spec.Bridge, show(spec.IPv4), show(spec.IPv6), map[bool]string{true: "true", false: "false"}[spec.DHCP]}, " ")
			if fields != nil || got != c.want {
				t.Errorf("got %s %+v, want %s", got, fields, c.want)
			}
		})
	}
}

func TestFree(t *testing.T) {
	if p, ok := network.Free(wire.DefaultID(node), network.Host{}); !ok || p.String() != "192.168.122.1/24" {
		t.Errorf("default is %s", p)
	}
	if p, ok := network.Free(wire.DefaultID(node), host); !ok || p.String() != "192.168.123.1/24" {
		t.Errorf("default beside another is %s", p)
	}
	full := network.Host{Used: []network.Use{{Prefix: netip.MustParsePrefix("192.168.0.0/16")}}}
	if p, ok := network.Free(events.NewID(), full); ok {
		t.Errorf("found %s where nothing is free", p)
	}
	if _, fields := network.Plan(events.NewID(), wire.CreateData{Mode: wire.ModeNAT}, full); len(fields) != 1 || fields[0].Field != "ipv4" {
		t.Errorf("refused with %+v", fields)
	}
}

// TestLease: whatever the gateway, what DHCP gives is of its range, without the gateway, the first and the last address,
// and not more than libvirt takes.
func TestLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, least, most := 4, 8, 30
		if rapid.Bool().Draw(t, "IPv6") {
			size, least, most = 16, 64, 120
		}
		b := rapid.SliceOfN(rapid.Byte(), size, size).Draw(t, "address")
		a, _ := netip.AddrFromSlice(b)
		gateway := netip.PrefixFrom(a, rapid.IntRange(least, most).Draw(t, "bits"))
		if gateway == gateway.Masked() || !gateway.Contains(a.Next()) { // no address for a gateway
			return
		}
		from, to := network.Lease(gateway)
		switch {
		case !gateway.Contains(from), !gateway.Contains(to), to.Less(from):
			t.Fatalf("%s gives %s to %s", gateway, from, to)
		case !a.Less(from) && !to.Less(a):
			t.Fatalf("%s gives its own address: %s to %s", gateway, from, to)
		case from == gateway.Masked().Addr(), !gateway.Contains(to.Next()):
			t.Fatalf("%s gives the ends of its range: %s to %s", gateway, from, to)
		}
	})
	for gateway, want := range map[string]string{
		"192.168.130.1/24": "192.168.130.2 192.168.130.254", "192.168.130.254/24": "192.168.130.1 192.168.130.253",
		"192.168.130.1/30": "192.168.130.2 192.168.130.2", "10.0.0.1/8": "10.0.0.2 10.0.253.233", "fd00::1/64": "fd00::2 fd00::fde9",
	} {
		from, to := network.Lease(netip.MustParsePrefix(gateway))
		if got := from.String() + " " + to.String(); got != want {
			t.Errorf("%s gives %s, want %s", gateway, got, want)
		}
	}
}
