package vm_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

var (
	node = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	opA  = uuid.MustParse("01900000-0000-7000-8000-00000000000a")
	opB  = uuid.MustParse("01900000-0000-7000-8000-00000000000b")
)

func intent(kind string, op uuid.UUID) events.Intent {
	return events.Intent{Type: kind, Command: events.DerivedID(op, kind), Operation: op, Deadline: time.Unix(1000, 0)}
}

func create(op uuid.UUID) vm.Create {
	return vm.Create{
		Intent: intent("vm.create", op), Node: node, Host: vm.Host{MaxCPUs: 4, MemoryMB: 1024},
		Spec: wire.Spec{
			Name: "web-1", Tags: []string{}, CPUs: 1, MaxCPUs: 2, MemoryMB: 128, Machine: "q35", Firmware: "bios", VNC: wire.VNC{Enabled: true},
			Disks:    []wire.Disk{{Name: "disk0", SizeGB: 1, Bus: "virtio", VolumeID: opA}},
			Networks: []wire.NIC{{Name: "nic0", Network: "default", MAC: new("52:54:00:00:00:01"), Link: "up"}},
		},
	}
}

// given folds commands and facts, each of which must be accepted.
func given(t *testing.T, cs ...any) vm.Machine {
	t.Helper()
	m := vm.Decider.Initial()
	for _, c := range cs {
		evs, err := vm.Decide(m, c)
		if err != nil {
			t.Fatalf("given %T: %v", c, err)
		}
		for _, ev := range evs {
			m = vm.Evolve(m, ev)
		}
	}
	return m
}

var defined = []any{
	create(opA),
	vm.Define{Intent: intent("vm.define", opA), Sources: []wire.Source{{Type: "file", Path: "/0", Format: "raw"}}},
	vm.Defined{NativeID: "web-1", Accelerator: "tcg"},
	vm.ProcessEnded{Operation: opA},
}

func with(cs []any, more ...any) []any { return append(append([]any{}, cs...), more...) }

var (
	started = with(defined, vm.Start{Intent: intent("vm.start", opA)}, vm.Settled{State: wire.StateRunning})
	paused  = with(started, vm.Observed{Node: node, State: wire.StatePaused})
)

func TestDecide(t *testing.T) {
	starting := with(defined, vm.Start{Intent: intent("vm.start", opA)})
	deleting := with(defined, vm.Delete{Intent: intent("vm.delete", opA)}, vm.Remove{Intent: intent("vm.remove", opA)})
	force := func(op uuid.UUID) vm.Stop {
		return vm.Stop{Intent: intent("vm.stop", op), StopData: wire.StopData{Force: true}}
	}
	ask := vm.Stop{Intent: intent("vm.shutdown", opB)}
	big := create(opA)
	big.Spec.CPUs, big.Spec.MemoryMB = 5, 2048
	for _, c := range []struct {
		name  string
		given []any
		when  any
		then  wire.State // after it
		code  problem.Code
		names string // operation that the problem names
	}{
		{name: "create claims the machine", when: create(opA), then: wire.StateCreating},
		{name: "create over the node's limits is refused", when: big, code: problem.InvalidValue},
		{name: "create of an existing one is refused", given: defined, when: create(opB), code: problem.InvalidState},
		{name: "start of a missing one", when: vm.Start{Intent: intent("vm.start", opB)}, code: problem.NotFound},
		{name: "start", given: defined, when: vm.Start{Intent: intent("vm.start", opB)}, then: wire.StateStarting},
		{name: "start while starting names the operation", given: starting, when: vm.Start{Intent: intent("vm.start", opB)}, code: problem.InvalidState, names: opA.String()},
		{name: "start of a running one", given: started, when: vm.Start{Intent: intent("vm.start", opB)}, code: problem.InvalidState},
		{name: "start while it is created", given: []any{create(opA)}, when: vm.Start{Intent: intent("vm.start", opB)}, code: problem.InvalidState, names: opA.String()},
		{name: "stop by force overtakes a start", given: starting, when: force(opB), then: wire.StateStopping},
		{name: "shutdown does not overtake a start", given: starting, when: ask, code: problem.InvalidState, names: opA.String()},
		{name: "stop by force does not overtake a delete", given: deleting, when: force(opB), code: problem.InvalidState, names: opA.String()},
		{name: "stop of a stopped one", given: defined, when: force(opB), code: problem.InvalidState},
		{name: "shutdown of a paused one", given: with(started, vm.Observed{Node: node, State: wire.StatePaused}), when: ask, code: problem.InvalidState},
		{name: "pause", given: with(started, vm.Pause{Intent: intent("vm.pause", opB)}), when: vm.Settled{State: wire.StatePaused}, then: wire.StatePaused},
		{name: "pause of a stopped one", given: defined, when: vm.Pause{Intent: intent("vm.pause", opB)}, code: problem.InvalidState},
		{name: "resume", given: with(paused, vm.Resume{Intent: intent("vm.resume", opB)}), when: vm.Settled{State: wire.StateRunning}, then: wire.StateRunning},
		{name: "resume of a running one", given: started, when: vm.Resume{Intent: intent("vm.resume", opB)}, code: problem.InvalidState},
		{name: "reset", given: with(started, vm.Reset{Intent: intent("vm.reset", opB)}), when: vm.Settled{State: wire.StateRunning}, then: wire.StateRunning},
		{name: "reset of a paused one", given: paused, when: vm.Reset{Intent: intent("vm.reset", opB)}, code: problem.InvalidState},
		{name: "a pause that found the guest off", given: with(started, vm.Pause{Intent: intent("vm.pause", opB)}), when: vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateStopped}, then: wire.StateStopped},
		{name: "stop by force overtakes a pause", given: with(started, vm.Pause{Intent: intent("vm.pause", opA)}), when: force(opB), then: wire.StateStopping},
		{name: "delete of a running one", given: started, when: vm.Delete{Intent: intent("vm.delete", opB)}, code: problem.InvalidState},
		{name: "delete by force of a running one", given: started, when: vm.Delete{Intent: intent("vm.delete", opB), DeleteData: wire.DeleteData{Force: true}}, then: wire.StateDeleting},
		{name: "start failed", given: starting, when: vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateStopped}, then: wire.StateStopped},
		{name: "a domain that vanished", given: started, when: vm.Observed{Node: node, Gone: true, Cause: "undefined"}, then: wire.StateError},
		{name: "a domain destroyed behind our back", given: started, when: vm.Observed{Node: node, State: wire.StateStopped, Cause: "destroyed"}, then: wire.StateStopped},
		{name: "a domain that another node does not have", given: started, when: vm.Observed{Gone: true}, then: wire.StateRunning},
		{name: "an observation while something is under way is no news", given: starting, when: vm.Observed{Node: node, State: wire.StateStopped}, then: wire.StateStarting},
		{name: "a failed remove lets the machine live", given: deleting, when: vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateRunning}, then: wire.StateDeleting},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := given(t, c.given...)
			evs, err := vm.Decide(m, c.when)
			var p *problem.Problem
			if errors.As(err, &p) != (c.code != "") || p != nil && p.Code != c.code {
				t.Fatalf("got %v, want code %q", err, c.code)
			}
			if p != nil {
				if p.Operation != c.names {
					t.Fatalf("problem names operation %q, want %q", p.Operation, c.names)
				}
				return
			}
			for _, ev := range evs {
				m = vm.Evolve(m, ev)
			}
			if m.State != c.then {
				t.Fatalf("state %s, want %s", m.State, c.then)
			}
		})
	}
}

func TestDeleteEnds(t *testing.T) {
	deleting := with(defined, vm.Delete{Intent: intent("vm.delete", opB)}, vm.Remove{Intent: intent("vm.remove", opB)})
	failed := problem.New(problem.EffectFailed, "no")
	t.Run("when the process has succeeded", func(t *testing.T) {
		m := given(t, with(deleting, vm.Settled{}, vm.ProcessEnded{Operation: opB})...)
		if !m.Ended || m.Intent != nil {
			t.Fatalf("not ended: %+v", m)
		}
	})
	t.Run("in error when the domain is gone and a disk is not", func(t *testing.T) {
		m := given(t, with(deleting, vm.Settled{}, vm.ProcessEnded{Operation: opB, Problem: failed})...)
		if m.Ended || m.State != wire.StateError || m.Process != uuid.Nil {
			t.Fatalf("got %+v", m)
		}
		if _, err := vm.Decide(m, vm.Delete{Intent: intent("vm.delete", opA)}); err != nil {
			t.Fatalf("cannot be asked for again: %v", err)
		}
	})
	t.Run("as it was when the domain could not be removed", func(t *testing.T) {
		m := given(t, with(deleting, vm.Failed{Problem: failed, State: wire.StateStopped}, vm.ProcessEnded{Operation: opB, Problem: failed})...)
		if m.Ended || m.State != wire.StateStopped || !m.Defined {
			t.Fatalf("got %+v", m)
		}
	})
}

func TestNames(t *testing.T) {
	name := []eventstore.Name{{Scope: "vm", Value: "web-1"}}
	for what, c := range map[string]struct {
		event          any
		claim, release []eventstore.Name
	}{
		"a create claims":          {wire.CreateRequested{Spec: create(opA).Spec}, name, nil},
		"a failed create releases": {wire.CreateFailed{}, nil, name},
		"a delete releases":        {wire.Deleted{}, nil, name},
		"a failed delete keeps":    {wire.DeleteFailed{}, nil, nil},
		"a lost domain keeps":      {wire.Lost{}, nil, nil},
	} {
		t.Run(what, func(t *testing.T) {
			claim, release := vm.Names(given(t, defined...), c.event)
			if !reflect.DeepEqual(claim, c.claim) || !reflect.DeepEqual(release, c.release) {
				t.Errorf("claims %v, releases %v; want %v, %v", claim, release, c.claim, c.release)
			}
		})
	}
}

// A fact that comes when nothing waits for it, and a command that is none, change nothing.
func TestNoNews(t *testing.T) {
	for _, c := range []any{vm.Settled{State: wire.StateStopped}, vm.Failed{State: wire.StateStopped}, vm.Defined{NativeID: "x"}, vm.Observed{Node: node, State: wire.StateRunning}, vm.Observed{Node: node, State: wire.StateUnknown}, vm.ProcessEnded{Operation: opB}} {
		if evs, err := vm.Decide(given(t, started...), c); err != nil || len(evs) > 0 {
			t.Errorf("%+v makes %+v, %v", c, evs, err)
		}
	}
	if evs, err := vm.Decide(given(t, started...), struct{}{}); err == nil || problem.From(err) != nil || evs != nil {
		t.Errorf("a stranger makes %+v, %v", evs, err)
	}
}
