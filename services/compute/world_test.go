package compute_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/services/compute"
	"horcrux/services/compute/hypervisor"
)

// unmanaged are the names of the guests that no machine is.
func (n *node) unmanaged() (names []string) {
	n.Helper()
	var all []wire.Unmanaged
	if err := n.bus.Call(n.Context(), compute.Domain, n.id, wire.UnmanagedMethod, nil, &all); err != nil {
		n.Fatal(err)
	}
	for _, v := range all {
		names = append(names, v.Name)
	}
	slices.Sort(names)
	return names
}

// marked says whether a domain bears our mark.
func (n *node) marked(id uuid.UUID) bool {
	driver := n.h.Driver()
	defer driver.Close()
	d, err := driver.Domain(n.Context(), id)
	return err == nil && d.Managed
}

func TestMarks(t *testing.T) {
	n := newNode(t)
	id := events.NewID()
	n.want(n.ask("create", id, machine("web", 0), time.Minute), "")
	spec, _ := n.h.Spec(id)

	t.Run("a machine that was defined anew without one gets it again, and its change is seen", func(t *testing.T) {
		spec.Description = "from a file"
		n.h.Add(spec, hypervisor.Off, false)
		n.eventually("the change is recorded", func() bool { return n.vm(id).Description == "from a file" })
		n.eventually("it is marked", func() bool { return n.marked(id) })
	})
	t.Run("a change of what is off is seen, though nothing tells of it", func(t *testing.T) {
		n.h.SetSilent(true)
		defer n.h.SetSilent(false)
		n.h.Reconfigure(id, false, func(s *hypervisor.Spec) { s.Description = "by hand" })
		n.eventually("the change is recorded", func() bool { return n.vm(id).Description == "by hand" })
	})
	t.Run("one that vanished and is there as a guest of others is theirs", func(t *testing.T) {
		n.h.Remove(id)
		n.eventually("it is lost", func() bool { return n.vm(id).State == wire.StateError })
		n.h.Add(spec, hypervisor.Running, false)
		time.Sleep(200 * time.Millisecond)
		if n.marked(id) {
			t.Error("it was marked")
		}
	})
	t.Run("a guest of others is left alone, and listed with what bears our mark and is no machine", func(t *testing.T) {
		theirs, orphan := spec, spec
		theirs.ID, theirs.Name = events.NewID(), "theirs"
		orphan.ID, orphan.Name = events.NewID(), "orphan"
		n.h.Add(theirs, hypervisor.Running, false)
		n.h.Add(orphan, hypervisor.Off, true)
		if got := n.unmanaged(); !slices.Equal(got, []string{"orphan", "theirs"}) {
			t.Errorf("listed are %v", got)
		}
		time.Sleep(200 * time.Millisecond)
		if n.marked(theirs.ID) {
			t.Error("a guest of others was marked")
		}
	})
}

// stale is a driver whose lists are of a moment before.
type stale struct {
	hypervisor.Driver
	list  func([]hypervisor.Domain) []hypervisor.Domain // makes the list of then from the one of now
	lists *atomic.Int32
}

func (s stale) Domains(ctx context.Context) ([]hypervisor.Domain, error) {
	all, err := s.Driver.Domains(ctx)
	s.lists.Add(1)
	return s.list(all), err
}

// TestLookedForTwice: that a machine is in no list, or is off in one, is not enough to say that it is gone or has stopped.
func TestLookedForTwice(t *testing.T) {
	unlisted := func([]hypervisor.Domain) []hypervisor.Domain { return nil }
	off := func(all []hypervisor.Domain) []hypervisor.Domain {
		for i := range all {
			all[i].State = hypervisor.Off
		}
		return all
	}
	for name, c := range map[string]struct {
		list  func([]hypervisor.Domain) []hypervisor.Domain
		start bool
		want  wire.State
	}{
		"made after the list":    {unlisted, false, wire.StateStopped},
		"started after the list": {off, true, wire.StateRunning},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var lists atomic.Int32
			n := newNode(t, func(n *node) {
				n.wrap = func(d hypervisor.Driver) hypervisor.Driver { return stale{d, c.list, &lists} }
			})
			id, data := events.NewID(), machine("web", 0)
			data.Start = c.start
			n.want(n.ask("create", id, data, time.Minute), "")
			before := lists.Load()
			n.eventually("all were looked at", func() bool { return lists.Load() > before+2 })
			if s := n.vm(id).State; s != c.want {
				t.Errorf("it is %s", s)
			}
			h, err := n.store.Load(t.Context(), events.NewStream(wire.Kind, id))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range h[0].Events {
				if e.Type == "vm.stopped" || e.Type == "vm.lost" {
					t.Errorf("%s was recorded: %s", e.Type, e.Data)
				}
			}
		})
	}
}
