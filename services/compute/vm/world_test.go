package vm_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func observed(s wire.State, cause string, after time.Duration) vm.Observed {
	return vm.Observed{Node: node, State: s, Cause: cause, Repair: intent("vm.repair", uuid.New()), At: noon.Add(after)}
}

// repairing is a running machine whose policy is to bring back what others change.
var repairing = with(started, vm.Update{Intent: intent("vm.update", opB), Host: bigHost, UpdateData: wire.UpdateData{OnDrift: new("repair")}})

func TestRepair(t *testing.T) {
	for name, c := range map[string]struct {
		given   []any
		when    any
		repairs bool
		to      wire.State
	}{
		"destroyed":              {repairing, observed(wire.StateStopped, "destroyed", 0), true, wire.StateRunning},
		"crashed":                {repairing, observed(wire.StateStopped, "crashed", 0), true, wire.StateRunning},
		"suspended":              {repairing, observed(wire.StatePaused, "paused", 0), true, wire.StateRunning},
		"undefined":              {repairing, vm.Observed{Node: node, Gone: true, Cause: "undefined", Repair: intent("vm.repair", opA), At: noon}, true, wire.StateRunning},
		"shut down by its guest": {repairing, observed(wire.StateStopped, "shutdown", 0), false, ""},
		"destroyed, to record":   {started, observed(wire.StateStopped, "destroyed", 0), false, ""},
		"started though it was stopped": {
			with(repairing, vm.Stop{Intent: intent("vm.stop", opA), StopData: wire.StopData{Force: true}}, vm.Settled{State: wire.StateStopped}),
			observed(wire.StateRunning, "started", 0), true, wire.StateStopped,
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := given(t, with(c.given, c.when)...)
			if repairs := m.Intent != nil && m.Intent.Type == "vm.repair"; repairs != c.repairs || repairs && m.Wanted != c.to {
				t.Fatalf("repairs %t to %s: %+v", repairs, m.Wanted, m)
			}
			if !c.repairs {
				return
			}
			m = given(t, with(c.given, c.when, vm.Settled{State: c.to})...)
			if m.Intent != nil || m.State != c.to || !m.Defined {
				t.Errorf("repaired, it is %+v", m)
			}
			m = given(t, with(c.given, c.when, vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateError})...)
			if m.Intent != nil || m.State != wire.StateError || m.Defined {
				t.Errorf("not repaired, it is %+v", m)
			}
		})
	}
}

func TestRepairIsGivenUp(t *testing.T) {
	again := func(cs []any, each time.Duration, n int) []any {
		for i := range n {
			cs = with(cs, observed(wire.StateStopped, "crashed", time.Duration(i)*each), vm.Settled{State: wire.StateRunning})
		}
		return cs
	}
	m := given(t, again(repairing, time.Second, 4)...)
	if m.Intent != nil || !m.GaveUp || m.State != wire.StateStopped {
		t.Fatalf("after four crashes in as many seconds: %+v", m)
	}
	if m := given(t, again(repairing, time.Hour, 4)...); m.GaveUp || m.State != wire.StateRunning {
		t.Errorf("after four crashes in as many hours: %+v", m)
	}
	gaveUp := again(repairing, time.Second, 4)
	m = given(t, with(gaveUp, vm.Start{Intent: intent("vm.start", opA)}, vm.Settled{State: wire.StateRunning}, observed(wire.StateStopped, "crashed", time.Minute))...)
	if m.Intent == nil || m.GaveUp {
		t.Errorf("after a command: %+v", m)
	}
}

// found is the configuration that the machine of these tests has.
func found(change func(*vm.Configuration)) vm.Configuration {
	c := vm.Configuration{
		CPUs: 1, MaxCPUs: 2, MemoryMB: 128,
		NICs:    []wire.NIC{{Network: "default", MAC: new("52:54:00:00:00:01"), Link: "up"}},
		Disks:   []wire.Disk{{Name: "vda"}},
		Sources: []wire.Source{{Type: "file", Path: "/0", Format: "raw"}},
	}
	if change != nil {
		change(&c)
	}
	return c
}

func TestDrift(t *testing.T) {
	look := func(running, next func(*vm.Configuration)) vm.Inspected {
		r := found(running)
		return vm.Inspected{Node: node, Running: &r, Next: found(next), Cause: "defined", Repair: intent("vm.repair", opA), At: noon}
	}
	cpus := func(n int) func(*vm.Configuration) { return func(c *vm.Configuration) { c.CPUs = n } }
	if evs, err := vm.Decide(given(t, started...), look(nil, nil)); err != nil || evs != nil {
		t.Fatalf("what is as it should be is news: %+v, %v", evs, err)
	}
	t.Run("of what runs and of the next start", func(t *testing.T) {
		m := given(t, with(started, look(cpus(2), func(c *vm.Configuration) { c.MemoryMB, c.Description = 256, "edited" }))...)
		if m.Spec.CPUs != 2 || m.Spec.Description != "edited" || string(m.Pending["memory_mb"]) != "256" || string(m.Pending["cpus"]) != "1" || m.Spec.MemoryMB != 128 {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("of the next start alone", func(t *testing.T) {
		m := given(t, with(started, look(cpus(2), nil), look(cpus(2), cpus(2)))...)
		if m.Spec.CPUs != 2 || len(m.Pending) != 0 {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("of what is off", func(t *testing.T) {
		off := vm.Inspected{Node: node, Next: found(cpus(2)), Cause: "defined"}
		if m := given(t, with(defined, off)...); m.Spec.CPUs != 2 || len(m.Pending) != 0 {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("devices come and go", func(t *testing.T) {
		swap := func(c *vm.Configuration) {
			c.NICs = []wire.NIC{{Network: "lan", MAC: new("52:54:00:00:00:02"), Link: "up"}}
			c.Disks, c.Sources = []wire.Disk{{Name: "vdz"}}, []wire.Source{{Path: "/z"}}
		}
		m := given(t, with(started, look(swap, swap))...)
		if n, d := m.Spec.Networks, m.Spec.Disks; len(n) != 1 || n[0].Name != "nic1" || len(d) != 1 || d[0].Name != "vdz" || m.Sources["vdz"].Path != "/z" {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("a disk that others bring to one configuration alone", func(t *testing.T) {
		bring := func(c *vm.Configuration) {
			c.Disks = append(c.Disks, wire.Disk{Name: "vdz"})
			c.Sources = append(c.Sources, wire.Source{Path: "/z"})
		}
		for name, seen := range map[string]vm.Inspected{"next": look(nil, bring), "running": look(bring, nil)} {
			m := given(t, with(started, seen, seen)...)
			if m.Sources["vdz"].Path != "/z" || len(m.Pending) != 1 {
				t.Errorf("%s: got %+v", name, m)
			}
		}
	})
	t.Run("a disk of ours that strays, and comes back", func(t *testing.T) {
		none := func(c *vm.Configuration) { c.Disks, c.Sources = nil, nil }
		m := given(t, with(started, look(none, none))...)
		if len(m.Spec.Disks) != 0 || len(m.Strayed) != 1 {
			t.Fatalf("got %+v", m)
		}
		m = given(t, with(started, look(none, none), look(nil, nil))...)
		if len(m.Spec.Disks) != 1 || m.Spec.Disks[0].VolumeID != opA || len(m.Strayed) != 0 {
			t.Errorf("got %+v", m)
		}
	})
	t.Run("is repaired, and what cannot be is told", func(t *testing.T) {
		seen := look(cpus(2), cpus(2))
		m := given(t, with(repairing, seen)...)
		if m.Intent == nil || m.Intent.Type != "vm.repair" || m.Spec.CPUs != 1 {
			t.Fatalf("got %+v", m)
		}
		left := look(cpus(2), nil)
		m = given(t, with(repairing, seen, vm.Settled{State: wire.StateRunning, Left: &left})...)
		if m.Intent != nil || m.Spec.CPUs != 2 || string(m.Pending["cpus"]) != "1" {
			t.Errorf("got %+v", m)
		}
	})
}

func TestImport(t *testing.T) {
	i := vm.Import{
		Intent: intent("vm.import", opA), Node: node, Spec: wire.Spec{Name: "old", Tags: []string{}, CPUs: 1, MaxCPUs: 1, MemoryMB: 64, OnDrift: "record", Adopted: true, Disks: []wire.Disk{{Name: "hda"}}},
		Sources: []wire.Source{{Path: "/srv/old.img"}},
	}
	m := given(t, i, vm.Adopted{NativeID: "old", Accelerator: "kvm", State: wire.StateRunning})
	if m.State != wire.StateRunning || !m.Defined || m.Intent != nil || m.Wanted != wire.StateRunning {
		t.Fatalf("got %+v", m)
	}
	if m := given(t, i, vm.Failed{Problem: problem.New(problem.EffectFailed, "no")}); !m.Ended || m.Intent != nil {
		t.Errorf("not adopted, it is %+v", m)
	}
	if m := given(t, i, vm.Failed{Problem: problem.New(problem.EffectFailed, "no")}, i, vm.Adopted{NativeID: "old", State: wire.StateStopped}); m.Ended || m.State != wire.StateStopped {
		t.Errorf("asked for again, it is %+v", m)
	}
	if _, err := vm.Decide(m, i); problem.From(err) == nil {
		t.Errorf("adopted twice: %v", err)
	}
	for _, u := range []wire.UpdateData{{TPM: new(true)}, {Machine: new("pc")}, {Disks: []wire.DiskUpdate{{Name: "hda", Cache: new("none")}}}} {
		if _, err := vm.Decide(m, vm.Update{UpdateData: u, Host: bigHost}); problem.From(err) == nil {
			t.Errorf("%+v: %v", u, err)
		}
	}
	if evs, err := vm.Decide(m, vm.Update{UpdateData: wire.UpdateData{MemoryMB: new(int64(32))}, Host: bigHost}); err != nil || len(evs) != 1 {
		t.Errorf("%+v, %v", evs, err)
	}
}
