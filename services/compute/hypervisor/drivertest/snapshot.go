package drivertest

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// snapshots asserts those of a domain.
func (c *cas) snapshots(id uuid.UUID, want ...hypervisor.Snapshot) {
	c.Helper()
	got, err := c.d.Snapshots(c.ctx(), id)
	c.ok(err)
	slices.SortFunc(got, func(a, b hypervisor.Snapshot) int { return cmp.Compare(a.Name, b.Name) })
	if len(got)+len(want) > 0 && !reflect.DeepEqual(got, want) {
		c.Fatalf("snapshots are\n%+v, want\n%+v", got, want)
	}
}

// keepable is a domain that is off, with a disk that keeps snapshots.
func (c *cas) keepable() hypervisor.Spec {
	c.Helper()
	spec := c.spec()
	spec.Disks = []hypervisor.Disk{c.h.Image(c.T)}
	if _, err := c.d.Define(c.ctx(), spec); err != nil {
		c.Fatalf("define: %v", err)
	}
	return spec
}

func (c *cas) snap(id uuid.UUID, name string, memory bool) {
	c.Helper()
	c.ok(c.d.Snapshot(c.ctx(), id, hypervisor.Snapshot{Name: name, Description: "<" + name + ">", Memory: memory}))
}

func off(name, parent string) hypervisor.Snapshot {
	return hypervisor.Snapshot{Name: name, Description: "<" + name + ">", Parent: parent, State: hypervisor.Off}
}

func (s *suite) snapshot() {
	s.cas("OffTwiceIsOnce", func(c *cas) {
		spec := c.keepable()
		c.snap(spec.ID, "a", false)
		c.snap(spec.ID, "b", false)
		c.snap(spec.ID, "a", false)
		c.snapshots(spec.ID, off("a", ""), off("b", "a"))
		c.see(spec.ID, hypervisor.Off)
	}, Snapshot)
	s.cas("ActiveWithMemory", func(c *cas) {
		spec := c.keepable()
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.snap(spec.ID, "a", true)
		c.snap(spec.ID, "a", true)
		c.see(spec.ID, hypervisor.Running)
		c.ok(c.d.Pause(c.ctx(), spec.ID))
		c.snap(spec.ID, "b", true)
		c.see(spec.ID, hypervisor.Paused)
		c.snapshots(spec.ID,
			hypervisor.Snapshot{Name: "a", Description: "<a>", Memory: true, State: hypervisor.Running},
			hypervisor.Snapshot{Name: "b", Description: "<b>", Memory: true, State: hypervisor.Paused, Parent: "a"})
		c.fails(c.d.Snapshot(c.ctx(), spec.ID, hypervisor.Snapshot{Name: "c"}), hypervisor.ErrUnsupported)
	}, Snapshot)
	s.cas("ErrConflict", func(c *cas) {
		c.fails(c.d.Snapshot(c.ctx(), c.keepable().ID, hypervisor.Snapshot{Name: "a", Memory: true}), hypervisor.ErrConflict)
	}, Snapshot)
	s.cas("ErrInvalid", func(c *cas) {
		spec := c.keepable()
		spec.Disks = append(spec.Disks, c.h.Volume(c.T, 1, mib))
		c.ok(c.d.Configure(c.ctx(), spec))
		c.fails(c.d.Snapshot(c.ctx(), spec.ID, hypervisor.Snapshot{Name: "a"}), hypervisor.ErrInvalid)
		c.snapshots(spec.ID)
	}, Snapshot, Change)
	s.cas("ErrNotFound", func(c *cas) {
		c.fails(c.d.Snapshot(c.ctx(), c.spec().ID, hypervisor.Snapshot{Name: "a"}), hypervisor.ErrNotFound)
		_, err := c.d.Snapshots(c.ctx(), c.spec().ID)
		c.fails(err, hypervisor.ErrNotFound)
	})
}

func (s *suite) restoreSnapshot() {
	s.cas("Off", func(c *cas) {
		spec := c.keepable()
		disk := spec.Disks[0]
		c.h.Write(c.T, disk, 'a')
		c.snap(spec.ID, "a", false)
		c.h.Write(c.T, disk, 'b')
		for range 2 {
			c.ok(c.d.RestoreSnapshot(c.ctx(), spec.ID, "a"))
			c.see(spec.ID, hypervisor.Off)
			if b := c.h.Read(c.T, disk); b != 'a' {
				c.Fatalf("the disk has %q", b)
			}
		}
		c.snap(spec.ID, "b", false)
		c.snapshots(spec.ID, off("a", ""), off("b", "a"))
		if dom := c.see(spec.ID, hypervisor.Off); !dom.Managed {
			c.Error("lost its mark")
		}
	}, Snapshot)
	s.cas("WithMemory", func(c *cas) {
		spec := c.keepable()
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.snap(spec.ID, "a", true)
		c.ok(c.d.Pause(c.ctx(), spec.ID))
		c.snap(spec.ID, "b", true)
		c.ok(c.d.RestoreSnapshot(c.ctx(), spec.ID, "a"))
		c.see(spec.ID, hypervisor.Running)
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		c.ok(c.d.RestoreSnapshot(c.ctx(), spec.ID, "b"))
		c.see(spec.ID, hypervisor.Paused)
	}, Snapshot)
	s.cas("ErrConflict", func(c *cas) {
		spec := c.keepable()
		c.snap(spec.ID, "a", false)
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.fails(c.d.RestoreSnapshot(c.ctx(), spec.ID, "a"), hypervisor.ErrConflict)
		c.see(spec.ID, hypervisor.Running)
	}, Snapshot)
	s.cas("ErrNotFound", func(c *cas) {
		c.fails(c.d.RestoreSnapshot(c.ctx(), c.spec().ID, "a"), hypervisor.ErrNotFound)
		c.fails(c.d.RestoreSnapshot(c.ctx(), c.defined().ID, "a"), hypervisor.ErrNotFound)
	})
}

func (s *suite) deleteSnapshot() {
	s.cas("TheNextGoOnFromTheOneBefore", func(c *cas) {
		spec := c.keepable()
		for _, name := range []string{"a", "b", "c"} {
			c.snap(spec.ID, name, false)
		}
		for range 2 {
			c.ok(c.d.DeleteSnapshot(c.ctx(), spec.ID, "b"))
			c.snapshots(spec.ID, off("a", ""), off("c", "a"))
		}
		c.ok(c.d.DeleteSnapshot(c.ctx(), spec.ID, "c"))
		c.snap(spec.ID, "d", false)
		c.snapshots(spec.ID, off("a", ""), off("d", "a"))
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		c.gone(spec.ID)
	}, Snapshot)
	s.cas("Running", func(c *cas) {
		spec := c.keepable()
		c.snap(spec.ID, "a", false)
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.ok(c.d.DeleteSnapshot(c.ctx(), spec.ID, "a"))
		c.see(spec.ID, hypervisor.Running)
		c.snapshots(spec.ID)
	}, Snapshot)
	s.cas("ErrNotFound", func(c *cas) { c.fails(c.d.DeleteSnapshot(c.ctx(), c.spec().ID, "a"), hypervisor.ErrNotFound) })
}
