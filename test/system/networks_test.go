package system_test

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/network"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// lab is what the parts of TestNetworks share.
type lab struct {
	*instance.Instance
	v4, v6   netip.Prefix // of the network nat
	outside4 netip.Prefix // of a host beyond this machine
	outside6 netip.Prefix
	outside  *host
}

// TestNetworks makes networks of every kind, and asks libvirt, the kernel and hosts on them what they are.
func TestNetworks(t *testing.T) {
	i := qemuInstance(t)
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skipf("real: libvirt: %v", err)
	}
	i.Start()
	r := uuid.New() // ranges that no other test has
	v4 := func(n byte) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + r[0]%64 + n*64, r[1], 1}), 24)
	}
	v6 := func(n byte) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x98, r[2], r[3], r[4], r[5], 0, n, 15: 1}), 64)
	}
	l := &lab{
		Instance: i, v4: v4(0), v6: v6(0), outside4: v4(1), outside6: v6(1),
	}
	l.outside = newHost(t)
	for _, near := range []netip.Prefix{l.outside4, l.outside6} {
		args := []string{"address", "add", near.String(), "dev", l.outside.near}
		if near.Addr().Is6() {
			args = append(args, "nodad")
		}
		l.outside.ip(args...)
		l.outside.has(netip.PrefixFrom(near.Addr().Next(), near.Bits()), near.Addr())
	}
	for _, part := range []struct {
		name string
		do   func(*lab, *testing.T)
	}{
		{"default is there from the first start", (*lab).byDefault},
		{"nat gives addresses and leads out", (*lab).nat},
		{"isolated leads nowhere", (*lab).isolated},
		{"bridge is a bridge of the host", (*lab).bridge},
		{"what cannot be is refused by field", (*lab).refusals},
		{"a guest holds the network that it is on", (*lab).guest},
		{"what others take down is told and comes back", (*lab).drift},
		{"it outlives the server and a reboot", (*lab).restart},
		{"deleted, nothing is left", (*lab).delete},
	} {
		i.Run(t, part.name, func(t *testing.T) { part.do(l, t) })
		if t.Failed() {
			return
		}
	}
}

func (l *lab) network(name string) (n openapi.Network) {
	l.T.Helper()
	l.Get("/api/networks/"+name, &n)
	return n
}

// told are the types of what happened to a network, with the reasons.
func (l *lab) told(name string) (types []string) {
	l.T.Helper()
	var h openapi.History
	l.Get("/api/networks/"+name+"/history", &h)
	for _, e := range h.Items {
		text := e.Type
		if e.Reason != nil {
			text += ": " + *e.Reason
		}
		types = append(types, text)
	}
	return types
}

// dnsmasq says whether one serves a network.
func dnsmasq(t *testing.T, i *instance.Instance, name string) bool {
	t.Helper()
	pids, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(pids, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && strings.Contains(string(b), "/dnsmasq/"+name+".conf") && serves(filepath.Dir(f), i)
	})
}

// serves says whether a process is of an instance's libvirtd, whose mounts it shares.
func serves(proc string, i *instance.Instance) bool {
	pid, err := os.ReadFile(filepath.Join(i.Dir, "libvirt", "libvirtd.pid"))
	if err != nil {
		return false
	}
	theirs, err := os.Readlink(filepath.Join(proc, "ns/mnt"))
	ours, _ := os.Readlink(filepath.Join("/proc", strings.TrimSpace(string(pid)), "ns/mnt")) // "" is nobody's
	return err == nil && theirs == ours
}

func there(link string) bool {
	_, err := net.InterfaceByName(link)
	return err == nil
}

func (l *lab) byDefault(t *testing.T) {
	n := l.network("default")
	if n.Mode != "nat" || n.State != wire.StateActive || !n.DHCP || n.IPv4 == nil || !there(n.Bridge) || !dnsmasq(t, l.Instance, "default") {
		t.Errorf("default is %+v", n)
	}
	if id := virsh(t, l.Instance, "net-uuid", "default"); id != n.ID.String() {
		t.Errorf("libvirt's is %s, ours %s", id, n.ID)
	}
	if told := l.told("default"); !slices.Equal(told, []string{"network.found: found"}) {
		t.Errorf("told as %q", told)
	}
}

func (l *lab) nat(t *testing.T) {
	l.Must("POST", "/api/networks", map[string]any{"name": "nat", "ipv4": l.v4, "ipv6": l.v6})
	n := l.network("nat")
	if n.Mode != "nat" || n.State != wire.StateActive || !n.DHCP || *n.IPv4 != l.v4 || *n.IPv6 != l.v6 {
		t.Errorf("%+v", n)
	}
	xml := virsh(t, l.Instance, "net-dumpxml", "nat")
	for _, want := range []string{
		n.ID.String(), "<forward mode='nat'", "<nat ipv6='yes'>", "<bridge name='" + n.Bridge + "'",
		"address='" + l.v4.Addr().String() + "'", "address='" + l.v6.Addr().String() + "'", "urn:horcrux:network:1",
	} {
		if !strings.Contains(xml, want) {
			t.Errorf("no %s in\n%s", want, xml)
		}
	}
	if info := virsh(t, l.Instance, "net-info", "nat"); strings.Count(info, "yes") != 3 { // active, persistent, autostart
		t.Errorf("it is\n%s", info)
	}
	guest := newHost(t)
	guest.joins(n.Bridge)
	if a := guest.lease(l.v4); !l.v4.Contains(a) {
		t.Errorf("given %s", a)
	}
	if !guest.reaches(l.outside4.Addr().Next()) {
		t.Error("it does not lead out")
	}
	a := guest.advertised()
	if !l.v6.Contains(a) {
		t.Errorf("given %s", a)
	}
	guest.has(netip.PrefixFrom(a, l.v6.Bits()), l.v6.Addr())
	if !guest.reaches(l.outside6.Addr().Next()) {
		t.Error("it does not lead out by IPv6")
	}
}

func (l *lab) isolated(t *testing.T) {
	b := l.v4.Addr().As4()
	gateway := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, b[1], b[2] ^ 1, 1}), 24) // beside the other
	l.Must("POST", "/api/networks", map[string]any{"name": "alone", "mode": "isolated", "ipv4": gateway})
	n := l.network("alone")
	if xml := virsh(t, l.Instance, "net-dumpxml", "alone"); strings.Contains(xml, "<forward") || n.Mode != "isolated" {
		t.Errorf("it is forwarded:\n%s", xml)
	}
	guest := newHost(t)
	guest.joins(n.Bridge)
	guest.lease(gateway)
	if !guest.reaches(gateway.Addr()) {
		t.Error("it does not reach the node")
	}
	if guest.reaches(l.outside4.Addr().Next()) {
		t.Error("it leads out")
	}
	l.Must("DELETE", "/api/networks/alone", nil)
}

func (l *lab) bridge(t *testing.T) {
	far := newHost(t)
	name := "hxb" + uuid.NewString()[:8]
	far.ip("link", "add", name, "type", "bridge")
	t.Cleanup(func() {
		if out, err := ip("link", "delete", name); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	l.Must("POST", "/api/networks", map[string]any{"name": "bridged", "mode": "bridge", "bridge": name})
	n := l.network("bridged")
	if n.Bridge != name || n.IPv4 != nil || n.IPv6 != nil || n.DHCP || n.State != wire.StateActive {
		t.Errorf("%+v", n)
	}
	if xml := virsh(t, l.Instance, "net-dumpxml", "bridged"); !strings.Contains(xml, "<forward mode='bridge'/>") || !strings.Contains(xml, "<bridge name='"+name+"'/>") {
		t.Error(xml)
	}
	l.Must("POST", "/api/vms", small("b1", map[string]any{"networks": []any{map[string]any{"network": "bridged"}}, "start": true}))
	if ports, err := filepath.Glob("/sys/class/net/" + name + "/brif/*"); err != nil || len(ports) != 1 {
		t.Errorf("ports of the bridge are %q, %v", ports, err)
	}
	l.Must("DELETE", "/api/vms/b1?force=true", nil)
	l.Must("DELETE", "/api/networks/bridged", nil)
	if !there(name) {
		t.Error("a bridge that is not ours is gone")
	}
}

func (l *lab) refusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   any
		status int
		code   problem.Code
		field  string
	}{
		{"name taken", map[string]any{"name": "nat"}, http.StatusConflict, problem.NameTaken, "name"},
		{"traversal", map[string]any{"name": "../nat"}, http.StatusUnprocessableEntity, problem.InvalidValue, "name"},
		{"a path as a bridge", map[string]any{"name": "x", "mode": "bridge", "bridge": "../lo"}, http.StatusUnprocessableEntity, problem.InvalidValue, "bridge"},
		{"no such bridge", map[string]any{"name": "x", "mode": "bridge", "bridge": "hxnone"}, http.StatusUnprocessableEntity, problem.InvalidValue, "bridge"},
		{"range of another network", map[string]any{"name": "x", "ipv4": netip.PrefixFrom(l.v4.Addr().Next(), 25)}, http.StatusUnprocessableEntity, problem.InvalidValue, "ipv4"},
		{"range of an interface", map[string]any{"name": "x", "ipv6": l.outside6}, http.StatusUnprocessableEntity, problem.InvalidValue, "ipv6"},
		{"no range", map[string]any{"name": "x", "ipv4": "all"}, http.StatusUnprocessableEntity, problem.InvalidValue, "ipv4"},
		{"unknown mode", map[string]any{"name": "x", "mode": "open"}, http.StatusUnprocessableEntity, problem.InvalidValue, "mode"},
		{"unknown key", map[string]any{"name": "x", "vlan": 5}, http.StatusBadRequest, problem.MalformedRequest, "vlan"},
	} {
		status, p := l.Problem("POST", "/api/networks", c.body)
		if status != c.status || p.Code != c.code || len(p.Fields) != 1 || p.Fields[0].Field != c.field {
			t.Errorf("%s: %d %+v", c.name, status, p)
		}
	}
	if status, p := l.Problem("DELETE", "/api/networks/none", nil); status != http.StatusNotFound {
		t.Errorf("delete of nothing: %d %+v", status, p)
	}
}

func (l *lab) guest(t *testing.T) {
	l.Must("POST", "/api/vms", small("g1", map[string]any{"networks": []any{map[string]any{"network": "nat"}}}))
	held := func() {
		t.Helper()
		if status, p := l.Problem("DELETE", "/api/networks/nat", nil); status != http.StatusConflict || p.Code != problem.InUse || !strings.Contains(p.Detail, "g1") {
			t.Errorf("delete: %d %+v", status, p)
		}
	}
	held()
	l.Must("POST", "/api/vms/g1/start", nil)
	if nics := virsh(t, l.Instance, "domiflist", "g1"); !strings.Contains(nics, "nat") {
		t.Error(nics)
	}
	held()
	l.Must("DELETE", "/api/vms/g1?force=true", nil)
}

func (l *lab) drift(t *testing.T) {
	known := len(l.told("nat"))
	back := func(n openapi.Network, want ...string) {
		t.Helper()
		instance.Eventually(t, heal, fmt.Sprintf("%q is told", want), func() bool { return slices.Equal(l.told("nat")[known:], want) })
		known += len(want)
		if now := l.network("nat"); now.State != wire.StateActive || !there(n.Bridge) || !dnsmasq(t, l.Instance, "nat") || now.ID != n.ID || *now.IPv4 != l.v4 {
			t.Errorf("it is %+v", now)
		}
		if info := virsh(t, l.Instance, "net-info", "nat"); strings.Count(info, "yes") != 3 {
			t.Errorf("it is\n%s", info)
		}
	}
	n := l.network("nat")
	virsh(t, l.Instance, "net-destroy", "nat")
	back(n, "network.stopped: stopped", "network.started: brought back")
	virsh(t, l.Instance, "net-undefine", "nat") // it is active still
	back(n, "network.lost: undefined", "network.started: brought back")
	l.Kill()
	virsh(t, l.Instance, "net-destroy", "nat")
	virsh(t, l.Instance, "net-undefine", "nat")
	l.Start()
	back(n, "network.lost: undefined", "network.started: brought back")
}

func (l *lab) restart(t *testing.T) {
	all := func() string {
		var list openapi.NetworkList
		l.Get("/api/networks?sort=name", &list)
		var out []string
		for _, n := range list.Items {
			out = append(out, fmt.Sprint(n.ID, n.Name, n.Version, n.State, n.IPv4, n.IPv6, there(n.Bridge)))
		}
		return strings.Join(out, "\n")
	}
	before := all()
	if strings.Count(before, "true") != 2 {
		t.Fatalf("there are\n%s", before)
	}
	l.Kill()
	l.Start()
	if after := all(); after != before {
		t.Errorf("killed and started there are\n%s\nbefore\n%s", after, before)
	}
	bridges := []string{l.network("default").Bridge, l.network("nat").Bridge}
	l.Stop()
	if slices.ContainsFunc(bridges, there) {
		t.Errorf("stopped, there is one of %q", bridges)
	}
	l.Start()
	l.Reboot()
	if after := all(); after != before {
		t.Errorf("rebooted there are\n%s\nbefore\n%s", after, before)
	}
}

func (l *lab) delete(t *testing.T) {
	n := l.network("nat")
	for _, name := range []string{"nat", "default"} {
		l.Must("DELETE", "/api/networks/"+name, nil)
	}
	if out := virsh(t, l.Instance, "net-list", "--all", "--name"); out != "" {
		t.Errorf("libvirt has %s", out)
	}
	instance.Eventually(t, heal, "bridge and dnsmasq are gone", func() bool {
		return !there(n.Bridge) && !dnsmasq(t, l.Instance, "nat") && !dnsmasq(t, l.Instance, "default")
	})
	if told := l.told(n.ID.String()); told[len(told)-1] != "network.deleted" {
		t.Errorf("told as %q", told)
	}
	l.Kill()
	l.Start()
	if a := l.Do("GET", "/api/networks/default", nil); a.StatusCode != http.StatusNotFound {
		t.Errorf("a default that was deleted came back: %s", a.Bytes)
	}
	l.Must("POST", "/api/networks", map[string]any{"name": "default"}) // the node chooses
	if n := l.network("default"); n.IPv4 == nil || !there(n.Bridge) {
		t.Errorf("%+v", n)
	}
}

// TestNetworkCrash kills the process with SIGKILL around the effects on networks. After the restart the operation ends as
// if nothing had happened, libvirt has the network once or not at all, and it was made under its own id.
func TestNetworkCrash(t *testing.T) {
	i := qemuInstance(t)
	i.Start()
	for n, point := range []string{
		"decided:network.create", "before-effect:network.create", "after-effect:network.create", "fact-recorded:network.create",
		"before-effect:network.delete", "after-effect:network.delete",
	} {
		i.Run(t, point, func(t *testing.T) {
			name := fmt.Sprintf("lan-%d", n)
			method, path, body := "POST", "/api/networks", any(map[string]any{"name": name})
			deletes := strings.HasSuffix(point, "delete")
			i.Kill()
			i.Start("HORCRUX_CRASHPOINT="+point, "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
			if deletes {
				i.Must(method, path, body)
				method, path, body = "DELETE", "/api/networks/"+name, nil
			}
			key := "crash-" + name
			if _, err := i.Try(method, path+"?wait=30", body, "Idempotency-Key", key); err == nil && !strings.HasPrefix(point, "fact-recorded:") {
				t.Fatalf("the process did not reach %s", point)
			}
			i.Died()
			i.Start()
			instance.Eventually(t, heal, "the operation is decided", func() bool {
				return i.Do(method, path, body, "Idempotency-Key", key).StatusCode == http.StatusAccepted
			})
			op := i.Must(method, path, body, "Idempotency-Key", key)
			if deletes {
				if out, err := tryVirsh(i, "net-info", name); err == nil {
					t.Errorf("it is still there:\n%s", out)
				}
				return
			}
			if id := virsh(t, i, "net-uuid", name); id != op.ResourceID.String() {
				t.Errorf("libvirt's is %s, ours %s", id, op.ResourceID)
			}
			var v openapi.Network
			i.Get("/api/networks/"+name, &v)
			if info := virsh(t, i, "net-info", name); v.State != wire.StateActive || !there(v.Bridge) || strings.Count(info, "yes") != 3 {
				t.Errorf("%+v\n%s", v, info)
			}
			i.Must("DELETE", "/api/networks/"+name, nil)
		})
	}
	settled(t, i)
}
