package host

import (
	"net/netip"
	"slices"
	"testing"
)

func TestRoutes(t *testing.T) {
	const text = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
virbr0	007AA8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000000A	00000000	0001	0	0	0	000000FF	0	0	0
`
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, p := range texts {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	got, err := routes4(text)
	if want := prefixes("0.0.0.0/0", "192.168.122.0/24", "10.0.0.0/8"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	const text6 = `fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000005 00000000 00000003     eth0
fc000000000000000000000000000000 07 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000000 00000000 00200200       lo
`
	got, err = routes6(text6)
	if want := prefixes("fd00::/64", "fe80::/64", "::/0"); err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := routes4("header\neth0 zz 0 0 0 0 0 0\n"); err == nil {
		t.Error("took a broken line")
	}
	if _, err := routes6("zz 40 0 0 0 0 0 0 0 lo"); err == nil {
		t.Error("took a broken line")
	}
}

// TestLook finds the loopback, which is everywhere, and takes no default route for a range.
func TestLook(t *testing.T) {
	h, err := Look()
	if err != nil {
		t.Fatal(err)
	}
	if bridge, there := h.Links["lo"]; !there || bridge {
		t.Errorf("links are %v", h.Links)
	}
	if !h.Overlaps(netip.MustParsePrefix("127.1.2.0/24")) {
		t.Errorf("used is %v", h.Used)
	}
	for _, u := range h.Used {
		if u.Prefix.Bits() == 0 {
			t.Errorf("%v takes everything", u)
		}
	}
}
