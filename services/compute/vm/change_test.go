package vm_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

func raw(text string) json.RawMessage { return json.RawMessage(text) }

var bigHost = vm.Host{MaxCPUs: 4, MemoryMB: 1024}

func TestUpdate(t *testing.T) {
	in := intent("vm.update", opB)
	tags, same := wire.UpdateData{Tags: &[]string{"a"}}, wire.UpdateData{Description: new(""), Tags: &[]string{}, Autostart: new(false), CPUs: new(1)}
	vanished := with(started, vm.Observed{Node: node, Gone: true})
	link := wire.UpdateData{Networks: []wire.NICUpdate{{Name: "nic0", Link: new("down")}}}
	nic := func(more string) string {
		return `[{"name":"nic0","network":"default","model":"","mac":"52:54:00:00:00:01","mtu":null,"link":"` + more + `","boot_order":null}]`
	}
	limited := `[{"name":"disk0","pool":"","size_gb":1,"format":"","image":null,"bus":"virtio","boot_order":null,"cache":"","discard":"","limits":{"read_iops":7,"write_iops":0,"read_mb_s":0,"write_mb_s":0},"volume_id":"01900000-0000-7000-8000-00000000000a"}]`
	uncached := `[{"name":"disk0","pool":"","size_gb":1,"format":"","image":null,"bus":"virtio","boot_order":null,"cache":"none","discard":"","limits":{"read_iops":0,"write_iops":0,"read_mb_s":0,"write_mb_s":0},"volume_id":"01900000-0000-7000-8000-00000000000a"}]`
	for _, c := range []struct {
		name             string
		given            []any
		when             wire.UpdateData
		changed, pending wire.Fields // of what is recorded; both nil for nothing
		immediate        bool        // no effect is needed
		code             problem.Code
		field            string
	}{
		{name: "nothing", given: defined},
		{name: "to what it is", given: defined, when: same},
		{name: "tags need no effect", given: started, when: tags, changed: wire.Fields{"tags": raw(`["a"]`)}, immediate: true},
		{
			name: "what the hypervisor keeps needs one", given: started, when: wire.UpdateData{Description: new("front"), Autostart: new(true)},
			changed: wire.Fields{"description": raw(`"front"`), "autostart": raw(`true`)},
		},
		{name: "more CPUs while it runs", given: started, when: wire.UpdateData{CPUs: new(2)}, changed: wire.Fields{"cpus": raw(`2`)}},
		{name: "more CPUs than can be added", given: started, when: wire.UpdateData{CPUs: new(3)}, pending: wire.Fields{"cpus": raw(`3`), "max_cpus": raw(`3`)}},
		{name: "the same when it is off", given: defined, when: wire.UpdateData{CPUs: new(3)}, changed: wire.Fields{"cpus": raw(`3`), "max_cpus": raw(`3`)}},
		{name: "fewer CPUs while it runs", given: with(started, vm.Update{Intent: in, Host: bigHost, UpdateData: wire.UpdateData{CPUs: new(2)}}, vm.Settled{}), when: wire.UpdateData{CPUs: new(1)}, pending: wire.Fields{"cpus": raw(`1`)}},
		{name: "more CPUs than the node has", given: started, when: wire.UpdateData{CPUs: new(5)}, code: problem.InvalidValue, field: "cpus"},
		{name: "less memory while it runs", given: started, when: wire.UpdateData{MemoryMB: new(int64(64))}, changed: wire.Fields{"memory_mb": raw(`64`)}},
		{name: "more memory than it was started with", given: started, when: wire.UpdateData{MemoryMB: new(int64(256))}, pending: wire.Fields{"memory_mb": raw(`256`)}},
		{
			name: "more memory again, up to what it was started with", given: with(started, vm.Update{Intent: in, Host: bigHost, UpdateData: wire.UpdateData{MemoryMB: new(int64(64))}}, vm.Settled{}),
			when: wire.UpdateData{MemoryMB: new(int64(128))}, changed: wire.Fields{"memory_mb": raw(`128`)},
		},
		{name: "a link", given: started, when: link, changed: wire.Fields{"networks": raw(nic("down"))}},
		{name: "a limit", given: started, when: wire.UpdateData{Disks: []wire.DiskUpdate{{Name: "disk0", Limits: &wire.IOLimits{ReadIOPS: 7}}}}, changed: wire.Fields{"disks": raw(limited)}},
		{name: "a cache mode", given: started, when: wire.UpdateData{Disks: []wire.DiskUpdate{{Name: "disk0", Cache: new("none")}}}, pending: wire.Fields{"disks": raw(uncached)}},
		{name: "a first password", given: started, when: wire.UpdateData{VNC: &wire.VNCUpdate{Password: &opA}}, pending: wire.Fields{"vnc": raw(`{"enabled":true,"password_ref":"` + opA.String() + `"}`)}},
		{
			name: "another password", given: with(defined, vm.Update{Intent: in, Host: bigHost, UpdateData: wire.UpdateData{VNC: &wire.VNCUpdate{Password: &opA}}}, vm.Settled{}, vm.Start{Intent: intent("vm.start", opA)}, vm.Settled{State: wire.StateRunning}),
			when: wire.UpdateData{VNC: &wire.VNCUpdate{Password: &opB}}, changed: wire.Fields{"vnc": raw(`{"enabled":true,"password_ref":"` + opB.String() + `"}`)},
		},
		{name: "what only a start changes", given: started, when: wire.UpdateData{Machine: new("pc"), TPM: new(true)}, pending: wire.Fields{"machine": raw(`"pc"`), "tpm": raw(`true`)}},
		{
			name: "what was pending is taken back", given: with(started, vm.Update{Intent: in, Host: bigHost, UpdateData: wire.UpdateData{Machine: new("pc")}}, vm.Settled{}),
			when: wire.UpdateData{Machine: new("q35"), Tags: &[]string{"a"}}, changed: wire.Fields{"tags": raw(`["a"]`)},
		},
		{name: "secure boot without UEFI", given: defined, when: wire.UpdateData{SecureBoot: new(true)}, code: problem.InvalidValue, field: "secure_boot"},
		{name: "a disk that is not there", given: defined, when: wire.UpdateData{Disks: []wire.DiskUpdate{{Name: "disk7"}}}, code: problem.InvalidValue, field: "disks[0].name"},
		{name: "a NIC that is not there", given: defined, when: wire.UpdateData{Networks: []wire.NICUpdate{{Name: "nic7"}}}, code: problem.InvalidValue, field: "networks[0].name"},
		{
			name: "a boot order that another NIC has", given: with(defined, vm.AttachNIC{Intent: in, AttachNICData: wire.AttachNICData{NIC: wire.NIC{Network: "default", Model: "virtio", Link: wire.LinkUp, BootOrder: new(5)}}}, vm.Settled{}),
			when: wire.UpdateData{Networks: []wire.NICUpdate{{Name: "nic0", BootOrder: new(5)}}}, code: problem.InvalidValue, field: "networks[0].boot_order",
		},
		{
			name: "the same, the other way round", given: with(defined, vm.AttachNIC{Intent: in, AttachNICData: wire.AttachNICData{NIC: wire.NIC{Network: "default", Model: "virtio", Link: wire.LinkUp}}}, vm.Settled{}),
			when: wire.UpdateData{Networks: []wire.NICUpdate{{Name: "nic1", BootOrder: new(5)}, {Name: "nic0", BootOrder: new(5)}}}, code: problem.InvalidValue, field: "networks[1].boot_order",
		},
		{
			name: "a boot order that a NIC has, for a disk", given: with(defined, vm.AttachNIC{Intent: in, AttachNICData: wire.AttachNICData{NIC: wire.NIC{Network: "default", Model: "virtio", Link: wire.LinkUp, BootOrder: new(5)}}}, vm.Settled{}),
			when: wire.UpdateData{Disks: []wire.DiskUpdate{{Name: "disk0", BootOrder: new(5)}}}, code: problem.InvalidValue, field: "disks[0].boot_order",
		},
		{name: "of a missing one", when: tags, code: problem.NotFound},
		{name: "of one that is created", given: []any{create(opA)}, when: tags, code: problem.InvalidState},
		{name: "of one that has vanished", given: vanished, when: tags, code: problem.InvalidState},
	} {
		t.Run(c.name, func(t *testing.T) {
			evs, err := vm.Decide(given(t, c.given...), vm.Update{Intent: in, UpdateData: c.when, Host: bigHost})
			p := problem.From(err)
			if (err != nil) != (c.code != "") || p != nil && p.Code != c.code {
				t.Fatalf("got %v, want code %q", err, c.code)
			}
			if c.field != "" && p.Fields[0].Field != c.field {
				t.Errorf("names %s, want %s", p.Fields[0].Field, c.field)
			}
			var want []any
			change := wire.Change{Changed: c.changed, Pending: c.pending}
			switch {
			case c.changed == nil && c.pending == nil:
			case c.immediate:
				want = []any{wire.Updated{Change: change}}
			default:
				want = []any{wire.UpdateRequested{Intent: in, Change: change}}
			}
			if !reflect.DeepEqual(evs, want) {
				t.Errorf("got %s, want %s", text(t, evs), text(t, want))
			}
		})
	}
	asked := with(started, vm.Update{Intent: in, Host: bigHost, UpdateData: wire.UpdateData{CPUs: new(2), Machine: new("pc")}})
	t.Run("holds when the effect has come about, the rest after the next start", func(t *testing.T) {
		m := given(t, with(asked, vm.Settled{})...)
		if m.Spec.CPUs != 2 || m.Spec.Machine != "q35" || len(m.Pending) != 1 || m.State != wire.StateRunning || m.Intent != nil {
			t.Errorf("got %+v", m)
		}
		m = given(t, with(asked, vm.Settled{}, vm.Stop{Intent: intent("vm.stop", opA), StopData: wire.StopData{Force: true}}, vm.Settled{State: wire.StateStopped})...)
		if m.Spec.Machine != "pc" || len(m.Pending) != 0 {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("is as before when it has not", func(t *testing.T) {
		m := given(t, with(asked, vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateRunning})...)
		if m.Spec.CPUs != 1 || len(m.Pending) != 0 || m.State != wire.StateRunning || m.Intent != nil {
			t.Errorf("got %+v", m)
		}
	})
}

func text(t *testing.T, v any) string {
	t.Helper()
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(doc)
}

func TestNICs(t *testing.T) {
	attach := func(n wire.NIC) vm.AttachNIC {
		return vm.AttachNIC{Intent: intent("vm.attach_network", opB), AttachNICData: wire.AttachNICData{NIC: n}}
	}
	detach := vm.DetachNIC{Intent: intent("vm.detach_network", opB), DetachNICData: wire.DetachNICData{Name: "nic0"}}
	for name, before := range map[string][]any{"off": defined, "running": started} {
		t.Run(name, func(t *testing.T) {
			m := given(t, with(before, attach(wire.NIC{Network: "lan", Link: "up"}), vm.Settled{})...)
			if n := m.Spec.Networks; len(n) != 2 || n[1].Name != "nic1" || n[1].MAC == nil || len(m.Pending) != 0 {
				t.Fatalf("got %+v", m)
			}
			m = given(t, with(before, attach(wire.NIC{Network: "lan"}), vm.Settled{}, detach, vm.Settled{})...)
			if n := m.Spec.Networks; len(n) != 1 || n[0].Name != "nic1" {
				t.Errorf("got %+v", n)
			}
		})
	}
	t.Run("an address twice", func(t *testing.T) {
		_, err := vm.Decide(given(t, started...), attach(wire.NIC{MAC: new("52:54:00:00:00:01")}))
		if p := problem.From(err); p == nil || p.Code != problem.InvalidValue || p.Fields[0].Field != "mac" {
			t.Errorf("got %v", err)
		}
	})
	t.Run("one that is not there", func(t *testing.T) {
		_, err := vm.Decide(given(t, started...), vm.DetachNIC{DetachNICData: wire.DetachNICData{Name: "nic4"}})
		if p := problem.From(err); p == nil || p.Code != problem.NotFound {
			t.Errorf("got %v", err)
		}
	})
}

func TestDisks(t *testing.T) {
	attach := func(bus string) vm.AttachDisk {
		return vm.AttachDisk{Intent: intent("vm.attach_disk", opB), AttachDiskData: wire.AttachDiskData{Disk: wire.Disk{SizeGB: 2, Bus: bus, VolumeID: opB}}}
	}
	step := vm.ChangeDisk{Intent: intent("vm.change_disk", opB), Source: &wire.Source{Path: "/1"}}
	ended := vm.ProcessEnded{Operation: opB}
	for name, before := range map[string][]any{"off": defined, "running": started} {
		t.Run(name, func(t *testing.T) {
			attached := with(before, attach("virtio"), step, vm.Settled{}, ended)
			m := given(t, attached...)
			if d := m.Spec.Disks; len(d) != 2 || d[1].Name != "disk1" || m.Sources["disk1"].Path != "/1" || m.Process != uuid.Nil {
				t.Fatalf("got %+v", m)
			}
			m = given(t, with(attached, vm.DetachDisk{Intent: intent("vm.detach_disk", opB), DetachDiskData: wire.DetachDiskData{Name: "disk0"}}, step, vm.Settled{}, ended)...)
			if d := m.Spec.Disks; len(d) != 1 || d[0].Name != "disk1" || m.Sources[d[0].Name].Path != "/1" {
				t.Fatalf("got %+v", m)
			}
			m = given(t, with(attached, vm.ResizeDisk{Intent: intent("vm.resize_disk", opB), ResizeDiskData: wire.ResizeDiskData{Name: "disk1", SizeGB: 5}}, step, vm.Settled{}, ended)...)
			if d := m.Spec.Disks; d[1].SizeGB != 5 || d[0].SizeGB != 1 {
				t.Fatalf("got %+v", m)
			}
			m = given(t, with(before, attach("virtio"), step, vm.Failed{Problem: problem.New(problem.EffectFailed, "no")}, vm.ProcessEnded{Operation: opB, Problem: problem.New(problem.EffectFailed, "no")})...)
			if len(m.Spec.Disks) != 1 || m.Process != uuid.Nil || m.Intent != nil {
				t.Errorf("got %+v", m)
			}
		})
	}
	for name, c := range map[string]struct {
		when any
		code problem.Code
	}{
		"sata while it runs":        {attach("sata"), problem.InvalidValue},
		"one that is not there":     {vm.DetachDisk{DetachDiskData: wire.DetachDiskData{Name: "disk9"}}, problem.NotFound},
		"smaller":                   {vm.ResizeDisk{ResizeDiskData: wire.ResizeDiskData{Name: "disk0"}}, problem.InvalidValue},
		"as large as it is":         {vm.ResizeDisk{ResizeDiskData: wire.ResizeDiskData{Name: "disk0", SizeGB: 1}}, problem.InvalidState},
		"a step of what has ended":  {step, problem.InvalidState},
		"larger, of one not there":  {vm.ResizeDisk{ResizeDiskData: wire.ResizeDiskData{Name: "x", SizeGB: 9}}, problem.NotFound},
		"a boot order that is used": {vm.AttachDisk{AttachDiskData: wire.AttachDiskData{Disk: wire.Disk{Bus: "virtio", BootOrder: new(1)}}}, problem.InvalidValue},
	} {
		t.Run(name, func(t *testing.T) {
			before := with(started, vm.Update{Intent: intent("vm.update", opA), Host: bigHost, UpdateData: wire.UpdateData{Disks: []wire.DiskUpdate{{Name: "disk0", BootOrder: new(1)}}}}, vm.Settled{})
			_, err := vm.Decide(given(t, before...), c.when)
			if p := problem.From(err); p == nil || p.Code != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
		})
	}
}
