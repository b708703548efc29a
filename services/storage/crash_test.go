package storage_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/dir"
	"horcrux/services/storage/backend/fake"
)

// The service dies around an effect, and another one starts on the same store and storage: the operation ends, the
// effect happened once, and nothing is left to do.
func TestServiceDies(t *testing.T) {
	for where, newDriver := range map[string]func() backend.Driver{
		"in memory":    func() backend.Driver { return &fake.World{} },
		"on directory": func() backend.Driver { return dir.Driver{} },
	} {
		for when, after := range map[string]bool{"between intent and effect": false, "between effect and fact": true} {
			t.Run("create "+where+" "+when, func(t *testing.T) {
				driver := newDriver()
				trap := newTrap(driver, fake.Create, after)
				h := newHost(t, trap)
				id := events.NewID()
				op := h.create(id, h.data(name(1)))
				h.wait(trap.held)
				h.stop()
				if n := len(h.stored()); n != map[bool]int{false: 0, true: 1}[after] {
					t.Fatalf("%d volumes where it died", n)
				}
				if h.idle() {
					t.Fatal("nothing is left to do where it died")
				}
				h.start()
				h.succeeds(op)
				h.wantStory(id, "create_requested created")
				if list := h.stored(); len(list) != 1 || list[0].ID != id {
					t.Errorf("stored %+v", list)
				}
				if w, ok := driver.(*fake.World); ok && w.Effects(fake.Create, id) != 1 {
					t.Errorf("made %d times", w.Effects(fake.Create, id))
				}
				h.until("nothing is left to do", h.idle)
			})
			t.Run("delete "+where+" "+when, func(t *testing.T) {
				driver := newDriver()
				trap := newTrap(driver, fake.Delete, after)
				h := newHost(t, trap)
				id, other := events.NewID(), events.NewID()
				h.succeeds(h.create(id, h.data(name(1))))
				h.succeeds(h.create(other, h.data(name(2))))
				op := h.delete(id)
				h.wait(trap.held)
				h.stop()
				h.start()
				h.succeeds(op)
				h.wantStory(id, "create_requested created delete_requested deleted")
				if list := h.stored(); len(list) != 1 || list[0].ID != other {
					t.Errorf("stored %+v", list)
				}
				if w, ok := driver.(*fake.World); ok && w.Effects(fake.Delete, id) != 1 {
					t.Errorf("deleted %d times", w.Effects(fake.Delete, id))
				}
				h.until("nothing is left to do", h.idle)
			})
		}
	}
}

// At its start the service removes volumes whose recorded create has failed, and no others: not those that a restored
// pool has again, and not those that a restored store has forgotten.
func TestOnlyFailedCreatesAreCleared(t *testing.T) {
	h := newHost(t, nil)
	requested := wire.CreateRequested{CreateData: h.data("data")}
	var ids []uuid.UUID // rise, and the service looks at volumes in their order
	h.stop()
	for _, story := range [][]any{
		nil,
		{requested, wire.Created{}},
		{requested, wire.Created{}, wire.DeleteRequested{}, wire.Deleted{}},
		{requested, wire.CreateFailed{}},
	} {
		id := events.NewID()
		ids = append(ids, id)
		must(t, os.WriteFile(filepath.Join(h.pool(), id.String()+".raw"), make([]byte, 512), 0o600))
		if story == nil {
			continue
		}
		a := eventstore.StreamAppend{Stream: events.NewStream(wire.Kind, id)}
		for _, ev := range story {
			a.Events = append(a.Events, wire.Codec.Encode(ev))
		}
		_, err := h.store.Append(t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{a}})
		must(t, err)
	}
	h.start()
	h.until("the last is cleared away", func() bool {
		list := h.stored()
		return len(list) == 0 || list[len(list)-1].ID != ids[3]
	})
	var left []uuid.UUID
	for _, v := range h.stored() {
		left = append(left, v.ID)
	}
	if !slices.Equal(left, ids[:3]) {
		t.Errorf("left %v, want %v", left, ids[:3])
	}
}

// A command that comes again, as after a crash before its acknowledgement, changes nothing.
func TestCommandComesAgain(t *testing.T) {
	world := &fake.World{}
	h := newHost(t, world)
	id := events.NewID()
	cmd := h.command("create", id, h.data(name(1)))
	h.succeeds(h.ask(cmd))
	must(t, h.bus.Publish(t.Context(), cmd, 1))
	h.succeeds(h.create(events.NewID(), h.data(name(2)))) // behind it
	h.wantStory(id, "create_requested created")
	if n := world.Effects(fake.Create, id); n != 1 {
		t.Errorf("made %d times", n)
	}
}
