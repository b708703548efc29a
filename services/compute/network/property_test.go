package network_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/network"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/network"
)

// TestAnyOrder throws commands, facts and observations at a network in any order. Whatever comes, the view says what the
// decider knows, the name is held as long as the network lives, one effect at a time is under way, and replaying the
// recorded events gives the same state.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := network.Decider.Initial()
		var log []events.Event
		var doc json.RawMessage
		held := map[eventstore.Name]bool{}
		step := func(c any) {
			before := n
			evs, err := network.Decide(n, c)
			if err != nil && (problem.From(err) == nil || len(evs) > 0) {
				t.Fatalf("%T in %+v: not a plain rejection: %v", c, before, err)
			}
			for _, ev := range evs {
				if before.Ended {
					t.Fatalf("%T made %T of a network that has ended", c, ev)
				}
				claim, release := network.Names(n, ev)
				for _, name := range claim {
					if held[name] {
						t.Fatalf("claims %v twice", name)
					}
					held[name] = true
				}
				for _, name := range release {
					if !held[name] {
						t.Fatalf("releases %v, which it does not hold", name)
					}
					delete(held, name)
				}
				n = network.Evolve(n, ev)
				d := wire.Codec.Encode(ev)
				log = append(log, events.Event{Version: int64(len(log) + 1), Type: d.Type, Schema: d.Schema, Data: d.Data})
				var deleted bool
				if doc, deleted, err = wire.Resource.Apply(doc, log[len(log)-1]); err != nil {
					t.Fatal(err)
				}
				var v wire.View
				if err := json.Unmarshal(doc, &v); err != nil {
					t.Fatal(err)
				}
				if deleted != n.Ended || !n.Ended && (v.State != n.State || v.Name != n.Spec.Name || v.Node != n.Node || !reflect.DeepEqual(v.IPv4, n.Spec.IPv4)) {
					t.Fatalf("after %T the view is %s (deleted %t), the network %+v", ev, doc, deleted, n)
				}
			}
			busy := n.State == wire.StateCreating || n.State == wire.StateDeleting
			switch {
			case n.Ended && n.Intent != nil, !n.Ended && (n.Intent != nil) != busy:
				t.Fatalf("%T: %s with intent %v", c, n.State, n.Intent)
			case n.Exists && !n.Ended != (len(held) == 1):
				t.Fatalf("%T: ended %t, holds %v", c, n.Ended, held)
			case before.Intent != nil && n.Intent != nil && before.Intent.Command != n.Intent.Command:
				t.Fatalf("%T overtook %s", c, before.Intent.Type)
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			op := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "operation"))
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				step(create(op))
			case 1:
				step(remove(op, rapid.SampledFrom([][]string{nil, {"web-1"}}).Draw(t, "users")...))
			case 2:
				step(network.Made{})
			case 3:
				step(network.Removed{})
			case 4:
				step(network.Failed{Problem: no})
			case 5:
				step(network.Found{Spec: lan, Node: node, State: wire.StateActive})
			case 6:
				step(network.Yielded{Name: "lan", To: op})
			case 7:
				c := observed(rapid.SampledFrom([]wire.State{wire.StateActive, wire.StateInactive, wire.StateError}).Draw(t, "state"))
				if c.State == wire.StateActive && rapid.Bool().Draw(t, "moved") {
					c.Moved = &v4b
				}
				step(c)
			}
		}
		again := network.Decider.Initial()
		for _, e := range log {
			ev, err := wire.Codec.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			again = network.Evolve(again, ev)
		}
		if !reflect.DeepEqual(again, n) {
			t.Fatalf("replay differs:\n%+v\n%+v", again, n)
		}
	})
}
