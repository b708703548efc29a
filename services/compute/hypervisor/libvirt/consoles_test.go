//go:build !no_qemu

package libvirt

import (
	"testing"

	"horcrux/services/compute/hypervisor"
)

func TestConsoles(t *testing.T) {
	const devices = `<devices>
		<serial type='pty'><source path='/dev/pts/3'/><log file='/c/1.log' append='on'/><target port='0'/></serial>
		<serial type='pty'><source path='/dev/pts/4'/></serial>
		<graphics type='spice'/>`
	for name, tc := range map[string]struct {
		text string
		want hypervisor.Consoles
	}{
		"running": {
			`<domain type='qemu' id='3'>` + devices + `<graphics type='vnc' socket='/var/lib/libvirt/qemu/domain-3-a/vnc.sock'>
				<listen type='socket' socket='/var/lib/libvirt/qemu/domain-3-a/vnc.sock'/></graphics></devices></domain>`,
			hypervisor.Consoles{Active: true, VNC: "/var/lib/libvirt/qemu/domain-3-a/vnc.sock", Serial: "/dev/pts/3", SerialLog: "/c/1.log"},
		},
		"listening elsewhere": {
			`<domain id='3'>` + devices + `<graphics type='vnc'><listen type='socket' socket='/s'/></graphics></devices></domain>`,
			hypervisor.Consoles{Active: true, VNC: "/s", Serial: "/dev/pts/3", SerialLog: "/c/1.log"},
		},
		"with a port": {
			`<domain id='3'>` + devices + `<graphics type='vnc' port='5900'><listen type='address' address='::1'/></graphics></devices></domain>`,
			hypervisor.Consoles{Active: true, Serial: "/dev/pts/3", SerialLog: "/c/1.log"},
		},
		"off":  {`<domain>` + devices + `<graphics type='vnc'><listen type='socket'/></graphics></devices></domain>`, hypervisor.Consoles{SerialLog: "/c/1.log"}},
		"bare": {`<domain id='3'><devices/></domain>`, hypervisor.Consoles{Active: true}},
	} {
		if got, err := consoles(tc.text); got != tc.want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, tc.want)
		}
	}
	if _, err := consoles("<domain"); err == nil {
		t.Error("half a document is read")
	}
}

// What libvirt sends is not ours.
func FuzzConsoles(f *testing.F) {
	f.Add(textOf(f, full(), "/c"))
	f.Add(`<domain id='x'/>`)
	f.Fuzz(func(t *testing.T, text string) {
		if c, err := consoles(text); err == nil && !c.Active && c.VNC+c.Serial != "" {
			t.Errorf("one that is off has %+v", c)
		}
	})
}
