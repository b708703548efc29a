package network_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/network"
	"horcrux/pkg/problem"
	"horcrux/services/compute/network"
)

var (
	node = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	opA  = uuid.MustParse("01900000-0000-7000-8000-00000000000a")
	opB  = uuid.MustParse("01900000-0000-7000-8000-00000000000b")
	v4   = netip.MustParsePrefix("192.168.130.1/24")
	v4b  = netip.MustParsePrefix("192.168.131.1/24")
	lan  = wire.Spec{Name: "lan", Mode: wire.ModeNAT, Bridge: "virbr-1", IPv4: &v4, DHCP: true}
	no   = problem.New(problem.EffectFailed, "no")
)

func intent(kind string, op uuid.UUID) events.Intent {
	return events.Intent{Type: kind, Command: events.DerivedID(op, kind), Operation: op, Deadline: time.Unix(1000, 0).UTC()}
}

func create(op uuid.UUID) network.Create {
	return network.Create{Intent: intent("network.create", op), Spec: lan, Node: node}
}

func remove(op uuid.UUID, users ...string) network.Delete {
	return network.Delete{Intent: intent("network.delete", op), Users: users}
}

func observed(s wire.State) network.Observed {
	return network.Observed{Node: node, State: s, Cause: "seen"}
}

// given folds commands and facts, each of which must be accepted.
func given(t *testing.T, cs ...any) network.Network {
	t.Helper()
	n := network.Decider.Initial()
	for _, c := range cs {
		evs, err := network.Decide(n, c)
		if err != nil {
			t.Fatalf("given %T: %v", c, err)
		}
		for _, ev := range evs {
			n = network.Evolve(n, ev)
		}
	}
	return n
}

func with(cs []any, more ...any) []any { return append(append([]any{}, cs...), more...) }

func TestDecide(t *testing.T) {
	made := []any{create(opA), network.Made{}}
	deleting := with(made, remove(opA))
	found := network.Found{Spec: lan, Node: node, State: wire.StateInactive}
	moved := observed(wire.StateActive)
	moved.Moved = &v4b
	elsewhere := observed(wire.StateInactive)
	elsewhere.Node = opB
	for _, c := range []struct {
		name  string
		given []any
		when  any
		then  string // types of the events
		state wire.State
		code  problem.Code
		names string // operation that the problem names
	}{
		{name: "create claims the network", when: create(opA), then: "create_requested", state: wire.StateCreating},
		{name: "create of an existing one", given: made, when: create(opB), code: problem.InvalidState},
		{name: "create over one that yielded", given: []any{network.Yielded{Name: "default", To: opB}}, when: create(opB), code: problem.InvalidState},
		{name: "made", given: []any{create(opA)}, when: network.Made{}, then: "created", state: wire.StateActive},
		{name: "made twice", given: made, when: network.Made{}, state: wire.StateActive},
		{name: "not made", given: []any{create(opA)}, when: network.Failed{Problem: no}, then: "create_failed", state: wire.StateCreating},
		{name: "delete of a missing one", when: remove(opB), code: problem.NotFound},
		{name: "delete while it is made", given: []any{create(opA)}, when: remove(opB), code: problem.InvalidState, names: opA.String()},
		{name: "delete of a used one", given: made, when: remove(opB, "web-1"), code: problem.InUse},
		{name: "delete", given: made, when: remove(opB), then: "delete_requested", state: wire.StateDeleting},
		{name: "delete while it is deleted", given: deleting, when: remove(opB), code: problem.InvalidState, names: opA.String()},
		{name: "delete of one that is not active", given: with(made, observed(wire.StateInactive)), when: remove(opB), then: "delete_requested", state: wire.StateDeleting},
		{name: "removed", given: deleting, when: network.Removed{}, then: "deleted", state: wire.StateDeleting},
		{name: "removed without having been asked", given: made, when: network.Removed{}, state: wire.StateActive},
		{name: "not removed", given: with(made, observed(wire.StateError), remove(opA)), when: network.Failed{Problem: no}, then: "delete_failed", state: wire.StateError},
		{name: "delete of a deleted one", given: with(deleting, network.Removed{}), when: remove(opB), code: problem.NotFound},
		{name: "found", when: found, then: "found", state: wire.StateInactive},
		{name: "found again", given: made, when: found, state: wire.StateActive},
		{name: "found after it was deleted", given: with(deleting, network.Removed{}), when: found, state: wire.StateDeleting},
		{name: "yielded", when: network.Yielded{Name: "default", To: opB}, then: "yielded"},
		{name: "yielded when it is there", given: []any{found}, when: network.Yielded{}, state: wire.StateInactive},
		{name: "stopped by others", given: made, when: observed(wire.StateInactive), then: "stopped", state: wire.StateInactive},
		{name: "undefined by others", given: made, when: observed(wire.StateError), then: "lost", state: wire.StateError},
		{name: "brought back", given: with(made, observed(wire.StateError)), when: observed(wire.StateActive), then: "started", state: wire.StateActive},
		{name: "moved", given: made, when: moved, then: "started", state: wire.StateActive},
		{name: "no news", given: made, when: observed(wire.StateActive), state: wire.StateActive},
		{name: "seen while it is made", given: []any{create(opA)}, when: observed(wire.StateInactive), state: wire.StateCreating},
		{name: "seen while it is deleted", given: deleting, when: observed(wire.StateError), state: wire.StateDeleting},
		{name: "seen on another node", given: made, when: elsewhere, state: wire.StateActive},
		{name: "seen, and not ours", when: observed(wire.StateActive)},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := given(t, c.given...)
			evs, err := network.Decide(n, c.when)
			var p *problem.Problem
			if errors.As(err, &p) != (c.code != "") || p != nil && (p.Code != c.code || p.Operation != c.names) {
				t.Fatalf("got %v, want code %q that names %q", err, c.code, c.names)
			}
			if p != nil {
				return
			}
			var types []string
			for _, ev := range evs {
				types = append(types, strings.TrimPrefix(wire.Codec.Encode(ev).Type, "network."))
				n = network.Evolve(n, ev)
			}
			if got := strings.Join(types, " "); got != c.then || n.State != c.state {
				t.Errorf("events %q, state %q, want %q, %q", got, n.State, c.then, c.state)
			}
		})
	}
	if n := given(t, with(made, moved)...); *n.Spec.IPv4 != v4b {
		t.Errorf("moved to %s", n.Spec.IPv4)
	}
}

func TestInUseNamesAFew(t *testing.T) {
	p := network.InUse([]string{"a", "b", "c", "d", "e", "f", "g"})
	if p.Code != problem.InUse || !strings.HasSuffix(p.Detail, "a, b, c, d, e and 2 more") {
		t.Errorf("%+v", p)
	}
}
