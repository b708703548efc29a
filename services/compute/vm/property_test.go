package vm_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

// TestAnyOrder throws commands, facts and observations at a machine in any order. Whatever comes, the invariants
// hold, the view says what the decider knows, the name is held as long as the machine lives, and replaying the recorded
// events gives the same state.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log []events.Event
		m := vm.Decider.Initial()
		w := &world{t: t, held: map[eventstore.Name]bool{}}
		step := func(c any) {
			before := m
			evs, err := vm.Decide(m, c)
			if err != nil {
				if problem.From(err) == nil {
					t.Fatalf("%T in %+v: not a rejection: %v", c, before, err)
				}
				if len(evs) > 0 {
					t.Fatalf("%T: rejected with events", c)
				}
				return
			}
			for _, ev := range evs {
				if before.Ended {
					t.Fatalf("%T made %T of a machine that has ended", c, ev)
				}
				w.names(vm.Names(m, ev))
				d := wire.Codec.Encode(ev)
				log = append(log, events.Event{Version: int64(len(log) + 1), Type: d.Type, Schema: d.Schema, Data: d.Data})
				m = vm.Evolve(m, ev)
				w.see(log[len(log)-1], m)
			}
			check(t, before, c, m)
		}
		states := []wire.State{wire.StateRunning, wire.StateStopped, wire.StatePaused}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			op := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "operation"))
			state := rapid.SampledFrom(states).Draw(t, "state")
			force := rapid.Bool().Draw(t, "force")
			failure := problem.New(problem.EffectFailed, "no")
			in := func(kind string) events.Intent {
				return events.Intent{Type: kind, Command: events.DerivedID(op, kind), Operation: op}
			}
			switch rapid.IntRange(0, 24).Draw(t, "what") {
			case 0:
				c := create(op)
				c.Intent = in("vm.create")
				c.Spec.Disks[0].Format = rapid.SampledFrom([]string{"qcow2", "qcow2", "raw"}).Draw(t, "format")
				step(c)
			case 1: // a step is only ever sent by the process that is under way
				if m.State == wire.StateCreating && m.Process != uuid.Nil && m.Intent == nil {
					op = m.Process
					step(vm.Define{Intent: in("vm.define"), Sources: []wire.Source{{Path: "/0"}}})
				}
			case 2:
				step(vm.Start{Intent: in("vm.start")})
			case 3:
				step(vm.Stop{Intent: in("vm.stop"), StopData: wire.StopData{Force: force}})
			case 4:
				step(vm.Update{Intent: in("vm.update"), Host: vm.Host{MaxCPUs: 4, MemoryMB: 1024}, UpdateData: wire.UpdateData{
					CPUs:        rapid.Ptr(rapid.IntRange(1, 5), true).Draw(t, "cpus"),
					MemoryMB:    rapid.Ptr(rapid.Int64Range(64, 1100), true).Draw(t, "memory"),
					Firmware:    rapid.Ptr(rapid.SampledFrom([]string{"bios", "uefi"}), true).Draw(t, "firmware"),
					Networks:    []wire.NICUpdate{{Name: "nic0", Link: rapid.Ptr(rapid.SampledFrom([]string{"up", "down"}), true).Draw(t, "link")}},
					Description: rapid.Ptr(rapid.SampledFrom([]string{"", "a", "b"}), true).Draw(t, "description"),
					Tags:        rapid.Ptr(rapid.SampledFrom([][]string{{}, {"a"}, {"a", "b"}}), true).Draw(t, "tags"),
					Autostart:   rapid.Ptr(rapid.Bool(), true).Draw(t, "autostart"),
				}})
			case 5:
				step(vm.Delete{Intent: in("vm.delete"), DeleteData: wire.DeleteData{Force: force}})
			case 6:
				if m.State == wire.StateDeleting && m.Process != uuid.Nil && m.Intent == nil && m.Defined {
					op = m.Process
					step(vm.Remove{Intent: in("vm.remove")})
				}
			case 7:
				if m.Intent != nil && m.Intent.Type == "vm.define" {
					step(vm.Defined{NativeID: "n", Accelerator: "tcg"})
				}
			case 8:
				if m.Intent != nil && m.Intent.Type != "vm.define" {
					step(vm.Settled{State: state})
				}
			case 9:
				step(vm.Failed{Problem: failure, State: state})
			case 10:
				step(vm.Observed{Node: node, State: state, Gone: rapid.Bool().Draw(t, "gone"), Cause: "seen"})
			case 11:
				if m.Intent == nil && m.Process != uuid.Nil {
					step(vm.ProcessEnded{Operation: m.Process})
				}
			case 12:
				step(vm.ProcessEnded{Operation: op, Problem: failure})
			case 13:
				step(vm.Pause{Intent: in("vm.pause")})
			case 14:
				step(vm.Resume{Intent: in("vm.resume")})
			case 15:
				step(vm.Reset{Intent: in("vm.reset")})
			case 16:
				step(vm.Reboot{Intent: in("vm.reboot")})
			case 17:
				step(vm.AttachNIC{Intent: in("vm.attach_network"), AttachNICData: wire.AttachNICData{NIC: wire.NIC{Network: "default", Link: "up"}}})
			case 18:
				step(vm.DetachNIC{Intent: in("vm.detach_network"), DetachNICData: wire.DetachNICData{Name: device(t, "nic")}})
			case 19:
				step(vm.AttachDisk{Intent: in("vm.attach_disk"), AttachDiskData: wire.AttachDiskData{Disk: wire.Disk{SizeGB: 1, Bus: "virtio", Format: "qcow2"}}})
			case 20:
				if force {
					step(vm.DetachDisk{Intent: in("vm.detach_disk"), DetachDiskData: wire.DetachDiskData{Name: device(t, "disk")}})
				} else {
					step(vm.ResizeDisk{Intent: in("vm.resize_disk"), ResizeDiskData: wire.ResizeDiskData{Name: device(t, "disk"), SizeGB: rapid.Int64Range(1, 4).Draw(t, "size")}})
				}
			case 21:
				if m.State != wire.StateCreating && m.State != wire.StateDeleting && m.Process != uuid.Nil && m.Intent == nil {
					op = m.Process
					step(vm.ChangeDisk{Intent: in("vm.change_disk"), Source: &wire.Source{Path: "/" + op.String()}})
				}
			case 22:
				step(vm.Snapshot{Intent: in("vm.snapshot"), SnapshotData: wire.SnapshotData{Name: device(t, "s"), Memory: force}})
			case 23:
				step(vm.RestoreSnapshot{Intent: in("vm.restore_snapshot"), SnapshotNameData: wire.SnapshotNameData{Name: device(t, "s")}})
			case 24:
				step(vm.DeleteSnapshot{Intent: in("vm.delete_snapshot"), SnapshotNameData: wire.SnapshotNameData{Name: device(t, "s")}})
			}
		}
		again := vm.Decider.Initial()
		for _, e := range log {
			ev, err := wire.Codec.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			again = vm.Evolve(again, ev)
		}
		if !reflect.DeepEqual(again, m) {
			t.Fatalf("replay differs:\n%+v\n%+v", again, m)
		}
	})
}

// device names one that may be there.
func device(t *rapid.T, prefix string) string {
	return prefix + rapid.SampledFrom([]string{"0", "1", "2"}).Draw(t, "device")
}

// world is what others see of a machine: the view, and whether its name is taken.
type world struct {
	t    *rapid.T
	doc  json.RawMessage
	held map[eventstore.Name]bool
}

func (w *world) names(claim, release []eventstore.Name) {
	for _, n := range claim {
		if w.held[n] {
			w.t.Fatalf("claims %v twice", n)
		}
		w.held[n] = true
	}
	for _, n := range release {
		if !w.held[n] {
			w.t.Fatalf("releases %v, which it does not hold", n)
		}
		delete(w.held, n)
	}
}

// see folds an event into the view and compares what it says with what the decider knows.
func (w *world) see(e events.Event, m vm.Machine) {
	next, deleted, err := wire.Resource.Apply(w.doc, e)
	if err != nil {
		w.t.Fatal(err)
	}
	w.doc = next
	var v wire.View
	if err := json.Unmarshal(next, &v); err != nil {
		w.t.Fatal(err)
	}
	if v.State != m.State || deleted != m.Ended || v.NativeID != nil && *v.NativeID != m.NativeID || v.Node != m.Node ||
		v.Name != m.Spec.Name || v.Description != m.Spec.Description || !slices.Equal(v.Tags, m.Spec.Tags) || v.Autostart != m.Spec.Autostart ||
		!same(w.t, shown(v), m.Spec) || len(v.Pending) != len(m.Pending) {
		w.t.Fatalf("after %s the view is %s (deleted %t), the machine %+v", e.Type, next, deleted, m)
	}
	shown := wire.Snapshots{All: v.Snapshots}
	if v.Snapshot != nil {
		shown.Current = *v.Snapshot
	}
	if !slices.EqualFunc(shown.All, m.Snapshots.All, func(a, b wire.Snapshot) bool { return reflect.DeepEqual(a.Taken, b.Taken) }) || shown.Current != m.Snapshots.Current {
		w.t.Fatalf("after %s the view shows %+v, the machine has %+v", e.Type, shown, m.Snapshots)
	}
	if held := w.held[eventstore.Name{Scope: wire.NameScope, Value: m.Spec.Name}]; held == m.Ended || len(w.held) > 1 {
		w.t.Fatalf("after %s, ended %t: holds %v", e.Type, m.Ended, w.held)
	}
}

// shown is the configuration that a view shows, as far as commands of this test change it.
func shown(v wire.View) wire.Spec {
	return wire.Spec{CPUs: v.CPUs, MaxCPUs: v.MaxCPUs, MemoryMB: v.MemoryMB, Firmware: v.Firmware, Disks: v.Disks, Networks: v.Networks}
}

func same(t *rapid.T, a, b wire.Spec) bool {
	b = wire.Spec{CPUs: b.CPUs, MaxCPUs: b.MaxCPUs, MemoryMB: b.MemoryMB, Firmware: b.Firmware, Disks: b.Disks, Networks: b.Networks}
	d, err := wire.Diff(a, b)
	if err != nil {
		t.Fatal(err)
	}
	return d == nil
}

func check(t *rapid.T, before vm.Machine, c any, m vm.Machine) {
	tree(t, m)
	switch {
	case m.Defined && slices.ContainsFunc(m.Spec.Disks, func(d wire.Disk) bool { return m.Sources[d.Name].Path == "" }):
		t.Fatalf("%T: nobody knows where a disk lies: %+v", c, m)
	case m.State == wire.StateStopped && len(m.Pending) > 0:
		t.Fatalf("%T: stopped, and pending are %v", c, m.Pending)
	case m.Ended && (m.Intent != nil || m.Process != uuid.Nil):
		t.Fatalf("%T: ended with something under way: %+v", c, m)
	case m.Intent != nil && !m.Exists:
		t.Fatalf("%T: an intent for nothing", c)
	case m.State == wire.StateStarting && (m.Intent == nil || m.Intent.Type != "vm.start"):
		t.Fatalf("%T: starting without its intent: %+v", c, m)
	case m.State == wire.StateStopping && m.Intent == nil:
		t.Fatalf("%T: stopping without its intent: %+v", c, m)
	case (m.State == wire.StateCreating || m.State == wire.StateDeleting) && m.Process == uuid.Nil && !m.Ended:
		t.Fatalf("%T: %s without a process", c, m.State)
	case before.Process != uuid.Nil && m.Process != uuid.Nil && before.Process != m.Process:
		t.Fatalf("%T: one process took another's place", c)
	case before.Intent != nil && m.Intent != nil && before.Intent.Command != m.Intent.Command && !forced(c):
		t.Fatalf("%T overtook %s without force", c, before.Intent.Type)
	}
}

// tree is whole: each goes on from one that is there, and each can be restored as far as its disks go.
func tree(t *rapid.T, m vm.Machine) {
	if _, ok := m.Snapshots.Find(m.Snapshots.Current); !ok && m.Snapshots.Current != "" || len(m.Past) != len(m.Snapshots.All) {
		t.Fatalf("at %q of %+v, %d pasts", m.Snapshots.Current, m.Snapshots.All, len(m.Past))
	}
	for _, o := range m.Snapshots.All {
		if o.Parent != nil {
			if _, ok := m.Snapshots.Find(*o.Parent); !ok {
				t.Fatalf("%s goes on from %s, which is not there", o.Name, *o.Parent)
			}
		}
		for _, d := range m.Past[o.Name].Spec.Disks {
			if !slices.ContainsFunc(m.Spec.Disks, func(now wire.Disk) bool { return now.Name == d.Name && now.SizeGB == d.SizeGB }) {
				t.Fatalf("%s has %s, which is not as it was", o.Name, d.Name)
			}
		}
	}
}

func forced(c any) bool {
	switch c := c.(type) {
	case vm.Stop:
		return c.Force
	case vm.Delete:
		return c.Force
	}
	return false
}
