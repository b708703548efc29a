package volume_test

import (
	"reflect"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/volume"
)

// TestAnyOrder throws commands and facts at a volume in any order. Whatever comes, the invariants hold, and replaying
// the recorded events gives the same state.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var log []events.Event
		v := volume.Decider.Initial()
		held := map[eventstore.Name]bool{}
		draw := func(what string) (uuid.UUID, events.Stream) {
			op := uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, what))
			return op, rapid.SampledFrom([]events.Stream{"", vm1, vm2}).Draw(t, "owner")
		}
		step := func(c any) {
			before := v
			evs, err := volume.Decide(v, c)
			if err != nil && (problem.From(err) == nil || len(evs) > 0 || isFact(c)) {
				t.Fatalf("%T in %+v: %d events, %v", c, before, len(evs), err)
			}
			for _, ev := range evs {
				claim, release := volume.Names(v, ev)
				for _, n := range claim {
					held[n] = true
				}
				for _, n := range release {
					if !held[n] {
						t.Fatalf("%T released %v, which it does not hold", ev, n)
					}
					delete(held, n)
				}
				d := wire.Codec.Encode(ev)
				log = append(log, events.Event{Type: d.Type, Schema: d.Schema, Data: d.Data})
				v = volume.Evolve(v, ev)
			}
			check(t, before, c, v, len(held))
		}
		t.Repeat(map[string]func(*rapid.T){
			"create":  func(*rapid.T) { step(create(draw("create"))) },
			"delete":  func(*rapid.T) { step(del(draw("delete"))) },
			"orphan":  func(*rapid.T) { step(orphaned(draw("orphan"))) },
			"release": func(*rapid.T) { _, owner := draw("release"); step(release(owner)) },
			"made":    func(*rapid.T) { step(made) },
			"removed": func(*rapid.T) { step(volume.Removed{}) },
			"failed":  func(*rapid.T) { step(failed) },
		})
		again := volume.Decider.Initial()
		for _, e := range log {
			ev, err := wire.Codec.Decode(e)
			if err != nil {
				t.Fatal(err)
			}
			again = volume.Evolve(again, ev)
		}
		if !reflect.DeepEqual(again, v) {
			t.Fatalf("replay differs:\n%+v\n%+v", again, v)
		}
	})
}

func isFact(c any) bool {
	switch c.(type) {
	case volume.Made, volume.Removed, volume.Failed:
		return true
	}
	return false
}

func check(t *rapid.T, before volume.Volume, c any, v volume.Volume, names int) {
	lives := v.Phase == volume.Creating || v.Phase == volume.Available || v.Phase == volume.Deleting
	switch {
	case (v.Intent != nil) != (v.Phase == volume.Creating || v.Phase == volume.Deleting):
		t.Fatalf("%T: %s with intent %v", c, v.Phase, v.Intent)
	case lives != (names == 1):
		t.Fatalf("%T: %s and holds %d names", c, v.Phase, names)
	case v.Phase < before.Phase && (before.Phase != volume.Deleting || v.Phase != volume.Available):
		t.Fatalf("%T led from %s back to %s", c, before.Phase, v.Phase)
	case before.Phase == volume.Ended && !reflect.DeepEqual(before, v):
		t.Fatalf("%T changed what has ended", c)
	case before.Intent != nil && v.Intent != nil && before.Intent.Command != v.Intent.Command:
		t.Fatalf("%T took an intent's place", c)
	case before.Phase != volume.Absent && v.Owner != before.Owner && v.Owner != "":
		t.Fatalf("%T gave the volume to %s", c, v.Owner)
	}
	if d, ok := c.(volume.Delete); ok && v.Phase == volume.Deleting && before.Phase == volume.Available &&
		before.Owner != "" && before.Owner != d.Owner && before.Owner != d.Ended {
		t.Fatalf("%q deleted the volume of %q", d.Owner, before.Owner)
	}
}
