//go:build !no_qemu

package libvirtd

import (
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"testing"
)

func TestParseRoutes(t *testing.T) {
	const text = `Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	0	00000000	0	0	0
virbr0	007AA8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
tun0	0000000A	00000000	0001	0	0	0	000000FF	0	0	0
`
	got, err := parseRoutes(text)
	want := []netip.Prefix{netip.MustParsePrefix("192.168.122.0/24"), netip.MustParsePrefix("10.0.0.0/8")}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := parseRoutes("header\neth0 zz 0 0 0 0 0 0\n"); err == nil {
		t.Error("took a broken line")
	}
}

func TestHiddenFrom(t *testing.T) {
	dir := t.TempDir()
	open, shut := filepath.Join(dir, "open"), filepath.Join(dir, "shut")
	inner := filepath.Join(shut, "inner")
	for path, mode := range map[string]os.FileMode{open: 0o755, shut: 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	me := &user.User{Uid: fmt.Sprint(os.Geteuid()), Gid: fmt.Sprint(os.Getegid()), Username: "me"}
	if got := hiddenFrom(me, inner); got != "" {
		t.Errorf("hidden from its owner: %s", got)
	}
	stranger := &user.User{Uid: "54321", Gid: "54321", Username: "stranger"}
	if got := hiddenFrom(stranger, inner); got != shut {
		t.Errorf("a stranger is stopped by %q", got)
	}
}
