package storage_test

import (
	"testing"

	"horcrux/pkg/events"
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
				<-trap.held
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
				<-trap.held
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
