package vm

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// The commands about snapshots. They are kept inside the qcow2 files of the disks.
type (
	// Snapshot takes one.
	Snapshot struct {
		events.Intent
		vm.SnapshotData
	}
	// RestoreSnapshot brings the machine back to one.
	RestoreSnapshot struct {
		events.Intent
		vm.SnapshotNameData
	}
	// DeleteSnapshot gives one up.
	DeleteSnapshot struct {
		events.Intent
		vm.SnapshotNameData
	}
)

// maxSnapshots is how many a machine has at most: QEMU reads the list of all with every start.
const maxSnapshots = 64

// Past is the machine as a snapshot has it.
type Past struct {
	Spec         vm.Spec
	BootMemoryMB int64
}

// steady says no where the machine has no state that a snapshot could have.
func (m Machine) steady() *problem.Problem {
	if p := m.alterable(); p != nil {
		return p
	}
	switch m.State {
	case vm.StateStopped, vm.StateRunning, vm.StatePaused:
		return nil
	}
	return problem.New(problem.InvalidState, "the virtual machine is %s", m.State)
}

func (m Machine) snapshot(c Snapshot) ([]any, error) {
	if p := m.steady(); p != nil {
		return nil, p
	}
	if strings.Trim(c.Name, "0123456789") == "" {
		return nil, problem.Invalid(problem.Field{Field: "snapshot_name", Detail: "must not be a number, which QEMU takes for the place of a snapshot"})
	}
	if _, taken := m.Snapshots.Find(c.Name); taken {
		return nil, SnapshotNameTaken("the virtual machine has a snapshot of that name")
	}
	if len(m.Snapshots.All) >= maxSnapshots {
		return nil, problem.New(problem.InvalidState, "the virtual machine has %d snapshots, which is the most", maxSnapshots)
	}
	if p := m.kept(c.Memory); p != nil {
		return nil, p
	}
	t := vm.Taken{Name: c.Name, Description: c.Description, Memory: c.Memory, State: m.State}
	if current := m.Snapshots.Current; current != "" {
		t.Parent = &current
	}
	return []any{vm.SnapshotRequested{Intent: c.Intent, Taken: t}}, nil
}

// SnapshotNameTaken refuses a name.
func SnapshotNameTaken(detail string) *problem.Problem {
	p := problem.New(problem.NameTaken, "%s", detail)
	p.Fields = []problem.Field{{Field: "snapshot_name", Detail: "is taken"}}
	return p
}

// kept says why the machine cannot be kept in a snapshot as it is now.
func (m Machine) kept(memory bool) *problem.Problem {
	p := problem.New(problem.InvalidState, "only disks of format qcow2 keep snapshots")
	for i, d := range m.Spec.Disks {
		if d.Format != "qcow2" {
			p.Fields = append(p.Fields, problem.Field{Field: fmt.Sprintf("disks[%d].format", i), Detail: fmt.Sprintf("%s is %s", d.Name, d.Format)})
		}
	}
	switch {
	case p.Fields != nil:
		return p
	case len(m.Spec.Disks) == 0:
		return problem.New(problem.InvalidState, "the virtual machine has no disk, which a snapshot would be kept in")
	case memory && !m.active():
		return problem.Invalid(problem.Field{Field: "memory", Detail: "a guest that is off has none; leave it out"})
	case !memory && m.active():
		return problem.New(problem.InvalidState, "the hypervisor keeps the disks of a guest that is %s only together with its memory; ask for memory, or stop it first", m.State)
	case memory && m.Spec.Firmware == "uefi":
		return problem.New(problem.InvalidState, "the hypervisor cannot keep the memory of a guest with firmware uefi; stop it first, and take the snapshot without memory")
	}
	return nil
}

func (m Machine) restoreSnapshot(c RestoreSnapshot) ([]any, error) {
	if p := m.steady(); p != nil {
		return nil, p
	}
	s, ok := m.Snapshots.Find(c.Name)
	if !ok {
		return nil, problem.New(problem.NotFound, "the virtual machine has no snapshot %q", c.Name)
	}
	if !s.Memory && m.active() {
		return nil, problem.New(problem.InvalidState, "the snapshot has no memory, and the guest is %s; stop it first", m.State)
	}
	then := m.Past[c.Name]
	if others := otherDisks(then.Spec.Disks, m.Spec.Disks); others != nil {
		return nil, problem.New(problem.InvalidState, "the disks are not those of the snapshot: %s", strings.Join(others, ", "))
	}
	r := vm.Restored{Name: c.Name, State: vm.StateStopped}
	if s.Memory {
		next, err := m.wanted()
		if err != nil {
			return nil, err
		}
		live := Machine{Spec: then.Spec, BootMemoryMB: then.BootMemoryMB}.live(next)
		if r.Changed, err = vm.Diff(m.Spec, live); err != nil {
			return nil, err
		}
		if r.Pending, err = vm.Diff(live, next); err != nil {
			return nil, err
		}
		r.State = s.State
	}
	return []any{vm.RestoreRequested{Intent: c.Intent, Restored: r}}, nil
}

// otherDisks says what became of the disks of a snapshot. libvirt goes back with all of a machine's disks or none.
func otherDisks(then, now []vm.Disk) (said []string) {
	for _, d := range then {
		i := slices.IndexFunc(now, func(o vm.Disk) bool { return same(o, d) })
		switch {
		case i < 0:
			said = append(said, d.Name+" went since")
		case now[i].SizeGB != d.SizeGB:
			said = append(said, d.Name+" has grown since")
		}
	}
	for _, d := range now {
		if !slices.ContainsFunc(then, func(o vm.Disk) bool { return same(o, d) }) {
			said = append(said, d.Name+" came since")
		}
	}
	return said
}

func same(a, b vm.Disk) bool { return a.Name == b.Name && a.VolumeID == b.VolumeID }

func (m Machine) deleteSnapshot(c DeleteSnapshot) ([]any, error) {
	if p := m.steady(); p != nil {
		return nil, p
	}
	if _, ok := m.Snapshots.Find(c.Name); !ok {
		return nil, problem.New(problem.NotFound, "the virtual machine has no snapshot %q", c.Name)
	}
	return []any{vm.SnapshotRemoveRequested{Intent: c.Intent, SnapshotRemoved: vm.SnapshotRemoved{Name: c.Name}}}, nil
}

// held says no to the end or growth of a disk that snapshots have: they could not be restored without it.
func (m Machine) held(d vm.Disk) *problem.Problem {
	var names []string
	for _, s := range m.Snapshots.All {
		if slices.ContainsFunc(m.Past[s.Name].Spec.Disks, func(o vm.Disk) bool { return same(o, d) }) {
			names = append(names, s.Name)
		}
	}
	if names == nil {
		return nil
	}
	return problem.New(problem.InUse, "snapshots have %s as it is and could not be restored; delete them first: %s", d.Name, strings.Join(names, ", "))
}

// taken is the machine with one more snapshot.
func (m Machine) taken(t vm.Taken) Machine {
	m.Snapshots = m.Snapshots.With(t, time.Time{}) // when is the view's to know
	m.Past = maps.Clone(m.Past)
	if m.Past == nil {
		m.Past = map[string]Past{}
	}
	m.Past[t.Name] = Past{Spec: m.Spec, BootMemoryMB: m.BootMemoryMB}
	return m
}

// at is the machine at a snapshot.
func (m Machine) at(r vm.Restored) Machine {
	m = m.changed(r.Change)
	m.Snapshots.Current = r.Name
	if s, _ := m.Snapshots.Find(r.Name); s.Memory {
		m.BootMemoryMB = m.Past[r.Name].BootMemoryMB
	}
	return m
}

// without is the machine with a snapshot less.
func (m Machine) without(name string) Machine {
	m.Snapshots = m.Snapshots.Without(name)
	m.Past = maps.Clone(m.Past)
	delete(m.Past, name)
	return m
}

// Snapshots says whether the effect of a command is on snapshots.
func Snapshots(command string) bool {
	switch command {
	case "vm.snapshot", "vm.restore_snapshot", "vm.delete_snapshot":
		return true
	}
	return false
}
