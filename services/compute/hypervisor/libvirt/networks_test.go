//go:build !no_qemu

package libvirt_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
	"horcrux/services/compute/network/networktest"
)

func TestNetworkConformance(t *testing.T) {
	d := start(t)
	l := raw(t, d.Socket(), "qemu:///system")
	net1 := func(id uuid.UUID) golibvirt.Network { return golibvirt.Network{UUID: golibvirt.UUID(id)} }
	must := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	networktest.Run(t, networktest.Harness{
		Open: func(t *testing.T) networktest.Driver { return open(t, d.URI()) },
		Foreign: func(t *testing.T, def network.Definition) {
			_, err := l().NetworkDefineXML(fmt.Sprintf("<network><name>%s</name><uuid>%s</uuid><forward mode='nat'/><ip address='%s' netmask='255.255.255.0'/></network>",
				def.Name, def.ID, def.IPv4.Addr()))
			must(t, err)
		},
		Stop:     func(t *testing.T, id uuid.UUID) { must(t, l().NetworkDestroy(net1(id))) },
		Undefine: func(t *testing.T, id uuid.UUID) { must(t, l().NetworkUndefine(net1(id))) },
		Spec:     func(s *hypervisor.Spec) { s.Machine = "q35" },
		Check:    onHost,
	})
}

// onHost looks for the bridge with its addresses, and for the dnsmasq that gives others on it.
func onHost(t *testing.T, def network.Definition, active bool) {
	t.Helper()
	link, err := net.InterfaceByName(def.Bridge)
	if active != (err == nil) {
		t.Fatalf("bridge %s: %v, active %t", def.Bridge, err, active)
	}
	for end := time.Now().Add(time.Minute); active != (dnsmasqs(t, def.Name) > 0); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d dnsmasq, active %t", dnsmasqs(t, def.Name), active)
		}
	}
	if !active {
		return
	}
	addrs, err := link.Addrs()
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(addrs)
	for _, p := range network.Ranges(def.Spec) {
		if !strings.Contains(text, p.String()) {
			t.Errorf("the bridge has %s, and not %s", text, p)
		}
	}
}

// dnsmasqs counts those that run for a network.
func dnsmasqs(t *testing.T, name string) (n int) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err == nil && strings.Contains(string(b), "dnsmasq/"+name+".conf") { // it may have ended meanwhile
			n++
		}
	}
	return n
}
