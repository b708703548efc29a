package vm_test

import (
	"reflect"
	"strings"
	"testing"

	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

func snap(name string, memory bool) vm.Snapshot {
	return vm.Snapshot{Intent: intent("vm.snapshot", opB), SnapshotData: wire.SnapshotData{Name: name, Memory: memory}}
}

func restore(name string) vm.RestoreSnapshot {
	return vm.RestoreSnapshot{Intent: intent("vm.restore_snapshot", opB), SnapshotNameData: wire.SnapshotNameData{Name: name}}
}

func drop(name string) vm.DeleteSnapshot {
	return vm.DeleteSnapshot{Intent: intent("vm.delete_snapshot", opB), SnapshotNameData: wire.SnapshotNameData{Name: name}}
}

// qcow2 is the machine of defined, with a disk that keeps snapshots.
func qcow2(change func(*wire.Spec)) []any {
	c := create(opA)
	c.Spec.Disks[0].Format = "qcow2"
	if change != nil {
		change(&c.Spec)
	}
	return with([]any{c}, defined[1:]...)
}

var (
	start  = []any{vm.Start{Intent: intent("vm.start", opA)}, vm.Settled{State: wire.StateRunning}}
	halt   = []any{vm.Stop{Intent: intent("vm.stop", opA), StopData: wire.StopData{Force: true}}, vm.Settled{State: wire.StateStopped}}
	failed = vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateRunning}
)

func TestSnapshotDecisions(t *testing.T) {
	off := qcow2(nil)
	running := with(off, start...)
	kept := with(off, snap("a", false), vm.Settled{})
	attached := with(kept,
		vm.AttachDisk{Intent: intent("vm.attach_disk", opB), AttachDiskData: wire.AttachDiskData{Disk: wire.Disk{SizeGB: 1, Bus: "virtio", Format: "qcow2", VolumeID: opB}}},
		vm.ChangeDisk{Intent: intent("vm.change_disk", opB), Source: &wire.Source{Path: "/1"}}, vm.Settled{}, vm.ProcessEnded{Operation: opB})
	detach := func(name string) vm.DetachDisk { return vm.DetachDisk{DetachDiskData: wire.DetachDiskData{Name: name}} }
	grow := func(name string) vm.ResizeDisk {
		return vm.ResizeDisk{ResizeDiskData: wire.ResizeDiskData{Name: name, SizeGB: 5}}
	}
	for _, c := range []struct {
		name  string
		given []any
		when  any
		code  problem.Code // "" where it is accepted
		says  string
	}{
		{name: "of one that is off", given: off, when: snap("a", false)},
		{name: "of one that runs, with memory", given: running, when: snap("a", true)},
		{name: "of a paused one, with memory", given: with(running, vm.Observed{Node: node, State: wire.StatePaused}), when: snap("a", true)},
		{name: "of one that runs, without", given: running, when: snap("a", false), code: problem.InvalidState, says: "only together with its memory"},
		{name: "of the memory of one that is off", given: off, when: snap("a", true), code: problem.InvalidValue, says: "memory"},
		{name: "of a raw disk", given: defined, when: snap("a", false), code: problem.InvalidState, says: "qcow2"},
		{name: "without a disk", given: qcow2(func(s *wire.Spec) { s.Disks = nil }), when: snap("a", false), code: problem.InvalidState, says: "no disk"},
		{name: "of the memory of a guest with UEFI", given: with(qcow2(func(s *wire.Spec) { s.Firmware = "uefi" }), start...), when: snap("a", true), code: problem.InvalidState, says: "uefi"},
		{name: "of the disks of a guest with UEFI", given: qcow2(func(s *wire.Spec) { s.Firmware = "uefi" }), when: snap("a", false)},
		{name: "of a name that is taken", given: kept, when: snap("a", false), code: problem.NameTaken},
		{name: "of a number", given: off, when: snap("17", false), code: problem.InvalidValue, says: "number"},
		{name: "while another is taken", given: with(off, snap("a", false)), when: snap("b", false), code: problem.InvalidState},
		{name: "while it starts", given: with(off, start[0]), when: snap("b", true), code: problem.InvalidState},
		{name: "of one that has vanished", given: with(off, vm.Observed{Node: node, Gone: true}), when: snap("a", false), code: problem.InvalidState},
		{name: "of a missing one", when: snap("a", false), code: problem.NotFound},
		{name: "restore", given: kept, when: restore("a")},
		{name: "restore of another", given: kept, when: restore("b"), code: problem.NotFound},
		{name: "restore without memory while it runs", given: with(kept, start...), when: restore("a"), code: problem.InvalidState, says: "stop it first"},
		{name: "restore after a disk came", given: attached, when: restore("a"), code: problem.InvalidState, says: "disk1 came since"},
		{name: "growing a disk that a snapshot has", given: attached, when: grow("disk0"), code: problem.InUse, says: "delete them first: a"},
		{name: "detaching it", given: attached, when: detach("disk0"), code: problem.InUse, says: "delete them first: a"},
		{name: "growing one that none has", given: attached, when: grow("disk1")},
		{name: "detaching that", given: attached, when: detach("disk1")},
		{name: "growing it when the snapshot is gone", given: with(attached, drop("a"), vm.Settled{}), when: grow("disk0")},
		{name: "delete", given: with(kept, start...), when: drop("a")},
		{name: "delete of another", given: kept, when: drop("b"), code: problem.NotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			evs, err := vm.Decide(given(t, c.given...), c.when)
			p := problem.From(err)
			if (err != nil) != (c.code != "") || p != nil && p.Code != c.code || err == nil && len(evs) != 1 {
				t.Fatalf("got %v, %v, want code %q", evs, err, c.code)
			}
			if p != nil && !strings.Contains(text(t, p), c.says) {
				t.Errorf("says %s, want %q", text(t, p), c.says)
			}
		})
	}
}

func TestSnapshotTree(t *testing.T) {
	names := func(m vm.Machine) (s string) {
		for _, o := range m.Snapshots.All {
			s += o.Name
			if o.Parent != nil {
				s += "<" + *o.Parent
			}
			s += " "
		}
		return s + "at " + m.Snapshots.Current
	}
	all := with(qcow2(nil), snap("a", false), vm.Settled{}, snap("b", false), vm.Settled{}, restore("a"), vm.Settled{}, snap("c", false), vm.Settled{})
	for _, c := range []struct {
		name string
		more []any
		want string
	}{
		{"branches where it was restored", nil, "a b<a c<a at c"},
		{"one that failed is none", []any{snap("d", false), failed}, "a b<a c<a at c"},
		{"a restore that failed leaves it where it was", []any{restore("b"), vm.Failed{Problem: failed.Problem, State: wire.StateStopped}}, "a b<a c<a at c"},
		{"a restore", []any{restore("b"), vm.Settled{}}, "a b<a c<a at b"},
		{"the children of one that is deleted go on from its parent", []any{drop("a"), vm.Settled{}}, "b c at c"},
		{"the current one", []any{drop("c"), vm.Settled{}}, "a b<a at a"},
		{"all", []any{drop("c"), vm.Settled{}, drop("a"), vm.Settled{}, drop("b"), vm.Settled{}}, "at "},
		{"a delete that failed", []any{drop("c"), vm.Failed{Problem: failed.Problem, State: wire.StateStopped}}, "a b<a c<a at c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := names(given(t, with(all, c.more...)...)); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// A guest that comes back with its memory has the hardware of then. What can change live is as it is configured now, the
// rest waits for the next start.
func TestRestoreKeepsTheConfiguration(t *testing.T) {
	update := func(u wire.UpdateData) vm.Update {
		return vm.Update{Intent: intent("vm.update", opB), Host: bigHost, UpdateData: u}
	}
	before := with(with(qcow2(nil), start...), snap("a", true), vm.Settled{})
	before = with(before, halt...)
	before = with(before, update(wire.UpdateData{CPUs: new(2), Machine: new("pc"), MemoryMB: new(int64(256)), Description: new("now")}), vm.Settled{})
	m := given(t, with(before, restore("a"), vm.Settled{})...)
	if m.State != wire.StateRunning || m.Spec.CPUs != 2 || m.Spec.Description != "now" || m.Spec.Machine != "q35" || m.Spec.MemoryMB != 128 || m.BootMemoryMB != 128 {
		t.Errorf("has %+v", m.Spec)
	}
	if want := (wire.Fields{"machine": raw(`"pc"`), "memory_mb": raw(`256`)}); !reflect.DeepEqual(m.Pending, want) {
		t.Errorf("pending %s", text(t, m.Pending))
	}
	m = given(t, with(with(before, restore("a"), vm.Settled{}), halt...)...)
	if m.Spec.Machine != "pc" || m.Spec.MemoryMB != 256 || len(m.Pending) != 0 {
		t.Errorf("after a stop it has %+v", m.Spec)
	}
}
