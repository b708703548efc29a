package vm

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// Observations of the world, which nobody asked for.
type (
	// Observed: a domain was found in a state. Gone says that there is none.
	Observed struct {
		Node  uuid.UUID // where it was looked for
		State vm.State
		Gone  bool
		Cause string
		// Repair is the intent that a repair begins, where the policy wants one, At the present.
		Repair events.Intent
		At     time.Time
	}
	// Inspected: a domain was found with a configuration. Running is nil where nothing runs.
	Inspected struct {
		Node    uuid.UUID
		Running *Configuration
		Next    Configuration
		// Transient says that it runs and is forgotten once it stops.
		Transient bool
		Cause     string
		Repair    events.Intent
		At        time.Time
	}
)

// Reason is what others did to the domain, as far as it can be told.
func (c Inspected) Reason() string {
	if c.Transient {
		return "undefined"
	}
	return c.Cause
}

// Configuration is what a hypervisor has of a machine, as far as it is compared.
type Configuration struct {
	CPUs, MaxCPUs int
	MemoryMB      int64
	Description   string
	Autostart     bool
	NICs          []vm.NIC
	Disks         []vm.Disk
	Sources       []vm.Source // of the disks
}

const (
	repairsAtMost = 3                // one after the other
	repairWindow  = 10 * time.Minute // after which they are counted anew
)

// settled says whether the machine is ours to look at now: while something is under way, its effect looks for itself.
func (m Machine) settled(node uuid.UUID) bool {
	return m.Exists && !m.Ended && m.Node == node && m.Defined && m.Intent == nil && m.Process == uuid.Nil
}

// observed records a change of state.
func (m Machine) observed(c Observed) []any {
	if !m.settled(c.Node) {
		return nil
	}
	if c.Gone {
		return m.repair([]any{vm.Lost{Cause: c.Cause}}, c.Cause, c.Repair, c.At)
	}
	if c.State == m.State {
		return nil
	}
	var evs []any
	switch c.State {
	case vm.StateRunning, vm.StateStopped, vm.StatePaused:
		evs = []any{m.seen(c.State, c.Cause)}
	default:
		return nil
	}
	if c.State == m.Wanted || ofTheGuest(c.State, c.Cause) {
		return evs
	}
	return m.repair(evs, c.Cause, c.Repair, c.At)
}

// ofTheGuest says whether a state is the guest's own doing, which is nothing to repair.
func ofTheGuest(s vm.State, cause string) bool { return s == vm.StateStopped && cause == "shutdown" }

// repair adds the intent to bring back what others changed, if the policy says so.
func (m Machine) repair(evs []any, cause string, i events.Intent, at time.Time) []any {
	if m.Spec.OnDrift != "repair" || m.GaveUp {
		return evs
	}
	if m.Repairs >= repairsAtMost && at.Sub(m.RepairedAt) < repairWindow {
		return append(evs, vm.RepairGivenUp{Problem: problem.New(problem.EffectFailed,
			"it was brought back %d times within %s; the next command begins anew", m.Repairs, repairWindow)})
	}
	return append(evs, vm.RepairRequested{Intent: i, Cause: cause, State: m.Wanted, At: at})
}

// givenUp says that a repair is no more tried.
func givenUp(evs []any) bool {
	return slices.ContainsFunc(evs, func(ev any) bool { _, ok := ev.(vm.RepairGivenUp); return ok })
}

// inspected records a change of configuration.
func (m Machine) inspected(c Inspected) ([]any, error) {
	if !m.settled(c.Node) {
		return nil, nil
	}
	change, err := m.drift(c)
	if err != nil {
		return nil, err
	}
	repairs := m.Spec.OnDrift == "repair" && !m.GaveUp
	if change == nil && c.Transient == m.Transient && (!c.Transient || !repairs) {
		return nil, nil
	}
	if change == nil {
		change = &vm.Change{Pending: m.Pending}
	}
	if evs := m.repair(nil, c.Reason(), c.Repair, c.At); repairs && !givenUp(evs) {
		return evs, nil
	} else if repairs {
		return append(evs, vm.Drifted{Cause: c.Reason(), Change: *change, Transient: c.Transient}), nil
	}
	return []any{vm.Drifted{Cause: c.Reason(), Change: *change, Transient: c.Transient}}, nil
}

// drift is how the hypervisor's configuration differs from ours; nil if it does not.
func (m Machine) drift(c Inspected) (*vm.Change, error) {
	wanted, err := m.wanted()
	if err != nil {
		return nil, err
	}
	sources := map[string]vm.Source{}
	next := m.found(c.Next, wanted, sources)
	next.MemoryMB = c.Next.MemoryMB
	live := next
	if c.Running != nil && m.active() {
		live = m.found(*c.Running, m.Spec, sources) // memory is the balloon's
		live.Description, live.Autostart = next.Description, next.Autostart
	}
	change := &vm.Change{}
	if change.Changed, err = vm.Diff(m.Spec, live); err != nil {
		return nil, err
	}
	if change.Pending, err = vm.Diff(live, next); err != nil {
		return nil, err
	}
	same, err := vm.Overlay(live, change.Pending)
	if err != nil {
		return nil, err
	}
	if left, err := vm.Diff(wanted, same); err != nil || left == nil && len(change.Changed) == 0 {
		return nil, err
	}
	if len(sources) > 0 {
		change.Sources = sources
	}
	return change, nil
}

// found is a configuration of ours with what was found in place of what we thought. Devices are known by their address or
// by where their bytes lie. The sources of disks that others brought are added to those that are given.
func (m Machine) found(c Configuration, s vm.Spec, sources map[string]vm.Source) vm.Spec {
	s.CPUs, s.MaxCPUs, s.Autostart = c.CPUs, c.MaxCPUs, c.Autostart
	if legible(s.Description) != legible(c.Description) {
		s.Description = c.Description
	}
	nics := []vm.NIC{}
	for _, n := range s.Networks {
		if n.MAC == nil {
			nics = append(nics, n) // of a machine from before addresses were recorded
			continue
		}
		if i := slices.IndexFunc(c.NICs, func(o vm.NIC) bool { return *o.MAC == *n.MAC }); i >= 0 {
			n.Link, n.Network = c.NICs[i].Link, c.NICs[i].Network
			nics = append(nics, n)
		}
	}
	derived := slices.ContainsFunc(s.Networks, func(n vm.NIC) bool { return n.MAC == nil })
	for _, o := range c.NICs {
		if !derived && !slices.ContainsFunc(s.Networks, func(n vm.NIC) bool { return *n.MAC == *o.MAC }) {
			o.Name = free("nic", func(name string) bool {
				return slices.ContainsFunc(nics, func(n vm.NIC) bool { return n.Name == name }) || nicAt(s, name) >= 0
			})
			nics = append(nics, o)
		}
	}
	s.Networks = nics
	lies := func(d vm.Disk) string { return m.Sources[d.Name].Path }
	disks := []vm.Disk{}
	for _, d := range s.Disks {
		if slices.ContainsFunc(c.Sources, func(o vm.Source) bool { return o.Path == lies(d) }) {
			disks = append(disks, d)
		}
	}
	for i, o := range c.Sources {
		if slices.ContainsFunc(disks, func(d vm.Disk) bool { return lies(d) == o.Path }) {
			continue
		}
		ours := slices.Concat(m.Spec.Disks, m.Strayed)
		if k := slices.IndexFunc(ours, func(d vm.Disk) bool { return lies(d) == o.Path }); k >= 0 {
			disks = append(disks, ours[k])
			continue
		}
		sources[c.Disks[i].Name] = o
		disks = append(disks, c.Disks[i])
	}
	s.Disks = disks
	return s
}

// legible is a description as a document holds it: without what XML cannot say, and without what it says otherwise.
func legible(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\r':
			return -1
		case r < ' ' && r != '\t' && r != '\n' || r == 0xfffe || r == 0xffff:
			return utf8.RuneError
		}
		return r
	}, text)
}

// repaired records that all is as it was, or what is not.
func (m Machine) repaired(c Settled) ([]any, error) {
	done := vm.Repaired{State: c.State, Change: vm.Change{Pending: m.Pending}}
	if c.Left == nil {
		return []any{done}, nil
	}
	done.Transient = c.Left.Transient
	left, err := m.drift(*c.Left)
	if left != nil {
		done.Change = *left
	}
	return []any{done}, err
}

// Import adopts a domain that others made. It is looked at before.
type Import struct {
	events.Intent
	Spec    vm.Spec
	Node    uuid.UUID
	Sources []vm.Source
}

// Adopted is the fact that the domain bears our mark.
type Adopted struct {
	NativeID    string
	Accelerator string
	State       vm.State
}

func (m Machine) adopt(c Import) ([]any, error) {
	if m.Exists && (!m.Ended || m.Defined) {
		return nil, problem.New(problem.InvalidState, "a virtual machine of this id exists already")
	}
	return []any{vm.ImportRequested{Intent: c.Intent, Spec: c.Spec, Node: c.Node, Sources: c.Sources}}, nil
}

// untouchable are the fields of an update that an adopted machine does not take: what others made is not made anew.
func untouchable(u vm.UpdateData) (fields []problem.Field) {
	for _, f := range []struct {
		name  string
		given bool
	}{
		{"cpu_model", u.CPUModel != nil},
		{"machine", u.Machine != nil},
		{"firmware", u.Firmware != nil},
		{"secure_boot", u.SecureBoot != nil},
		{"tpm", u.TPM != nil},
		{"boot", u.Boot != nil},
		{"serial", u.Serial != nil},
		{"vnc", u.VNC != nil},
		{"agent", u.Agent != nil},
		{"rng", u.RNG != nil},
	} {
		if f.given {
			fields = append(fields, problem.Field{Field: f.name, Detail: "cannot change here: the machine was adopted; use the tools that made it"})
		}
	}
	for i, d := range u.Disks {
		if d != (vm.DiskUpdate{Name: d.Name, Limits: d.Limits}) {
			fields = append(fields, problem.Field{Field: fmt.Sprintf("disks[%d]", i), Detail: "of an adopted machine only limits can change here"})
		}
	}
	for i, n := range u.Networks {
		if n != (vm.NICUpdate{Name: n.Name, Link: n.Link}) {
			fields = append(fields, problem.Field{Field: fmt.Sprintf("networks[%d]", i), Detail: "of an adopted machine only the link can change here"})
		}
	}
	return fields
}
