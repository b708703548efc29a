//go:build !no_qemu

package libvirt

import (
	"errors"
	"strings"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// FuzzDaemon: whatever libvirtd tells is read or refused.
func FuzzDaemon(f *testing.F) {
	f.Add(`<domainCapabilities><vcpu max='288'/></domainCapabilities>`, "state.state", int32(1), int32(1))
	f.Add(`<a><vcpu max="-1"/><vcpu max="99999999999999999999"/></a>`, "state.reason", int32(5), int32(-1))
	f.Add(`<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><a>&c;</a>`, "", int32(7), int32(3))
	f.Add(strings.Repeat("<a>", 1000), "x", int32(-1), int32(0))
	f.Fuzz(func(t *testing.T, text, field string, a, b int32) {
		if n, err := maxCPUs(text); err != nil && n != 0 {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		c, tells, known := changeOf(golibvirt.DomainEventType(a), b)
		if !known && (tells || c.Cause != "") || known && c.Cause == "" {
			t.Errorf("event %d, %d: %+v, tells %t, known %t", a, b, c, tells, known)
		}
		dom, err := domainOf(golibvirt.DomainStatsRecord{
			Dom: golibvirt.Domain{Name: text},
			Params: []golibvirt.TypedParam{
				{Field: field, Value: golibvirt.TypedParamValue{D: uint32(golibvirt.TypedParamInt), I: a}},
				{Field: golibvirt.DomainStatsStateReason, Value: golibvirt.TypedParamValue{D: uint32(golibvirt.TypedParamString), I: text}},
			},
		})
		switch dom.State {
		case hypervisor.Off, hypervisor.Running, hypervisor.Paused, hypervisor.Crashed:
		default:
			if err == nil {
				t.Errorf("state %q", dom.State)
			}
		}
	})
}

// FuzzDocument: whatever text is in a spec, it is refused, or the document says just that and nothing besides it. Only of
// a description another rune may take the place of one that XML has not.
func FuzzDocument(f *testing.F) {
	f.Add("web", "a < b & c", "host-model", "q35", "default", "/p/1.qcow2", "console=ttyS0 \"x\"", "52:54:00:00:00:01")
	f.Add("", "]]></description>", "max", "", "", "", "", "")
	f.Add("a'\"<", "\x00\x1b", "\xff", "&#0;", "<!--", "/\u2028", "\r\n", "&lt;")
	f.Fuzz(func(t *testing.T, name, description, model, machine, network, path, cmdline, address string) {
		spec := full()
		spec.Name, spec.Description, spec.CPUModel, spec.Machine, spec.Cmdline = name, description, model, machine, cmdline
		spec.Kernel, spec.Disks[0].Path = path, path
		spec.NICs = []hypervisor.NIC{{Network: network, Model: "virtio", MAC: address}}
		made, err := document(spec, "qemu", "/consoles")
		if err != nil {
			if !errors.Is(err, hypervisor.ErrInvalid) {
				t.Errorf("%v is not ErrInvalid", err)
			}
			return
		}
		text, err := marshal(made)
		if err != nil {
			t.Fatal(err)
		}
		var d libvirtxml.Domain
		if err := d.Unmarshal(text); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		devices := []int{len(d.Devices.Disks), len(d.Devices.Interfaces), len(d.Devices.Hostdevs), len(d.Devices.Filesystems)}
		if devices[0] != 4 || devices[1] != 1 || devices[2] != 0 || devices[3] != 0 || d.QEMUCommandline != nil {
			t.Fatalf("%v devices: %s", devices, text)
		}
		for want, got := range map[string]string{
			name: d.Name, cmdline: d.OS.Cmdline, path: d.Devices.Disks[0].Source.File.File,
			network: d.Devices.Interfaces[0].Source.Network.Network,
		} {
			if got != want {
				t.Errorf("%q has become %q", want, got)
			}
		}
	})
}
