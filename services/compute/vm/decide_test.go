package vm_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
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
		Spec: wire.Spec{Name: "web-1", CPUs: 1, MemoryMB: 128},
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
	vm.Define{Intent: intent("vm.define", opA)},
	vm.Defined{NativeID: "web-1", Accelerator: "tcg"},
	vm.ProcessEnded{Operation: opA},
}

func with(cs []any, more ...any) []any { return append(append([]any{}, cs...), more...) }

var started = with(defined, vm.Start{Intent: intent("vm.start", opA)}, vm.Settled{State: wire.StateRunning})

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
		{name: "shutdown of a paused one", given: with(started, vm.Observed{State: wire.StatePaused}), when: ask, code: problem.InvalidState},
		{name: "delete of a running one", given: started, when: vm.Delete{Intent: intent("vm.delete", opB)}, code: problem.InvalidState},
		{name: "delete by force of a running one", given: started, when: vm.Delete{Intent: intent("vm.delete", opB), DeleteData: wire.DeleteData{Force: true}}, then: wire.StateDeleting},
		{name: "start failed", given: starting, when: vm.Failed{Problem: problem.New(problem.EffectFailed, "no"), State: wire.StateStopped}, then: wire.StateStopped},
		{name: "a domain that vanished", given: started, when: vm.Observed{Gone: true, Cause: "undefined"}, then: wire.StateError},
		{name: "a domain destroyed behind our back", given: started, when: vm.Observed{State: wire.StateStopped, Cause: "destroyed"}, then: wire.StateStopped},
		{name: "an observation while something is under way is no news", given: starting, when: vm.Observed{State: wire.StateStopped}, then: wire.StateStarting},
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
