package vm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// The commands that change the configuration.
type (
	// Update changes values. What a node can give is looked up before.
	Update struct {
		events.Intent
		vm.UpdateData
		Host Host
	}
	// AttachNIC adds a NIC, whose name and address follow from the machine.
	AttachNIC struct {
		events.Intent
		vm.AttachNICData
	}
	// DetachNIC takes one away.
	DetachNIC struct {
		events.Intent
		vm.DetachNICData
	}
)

// Changes says whether the effect of a command is to bring a configuration to the hypervisor.
func Changes(command string) bool {
	switch command {
	case "vm.update", "vm.attach_network", "vm.detach_network", "vm.change_disk":
		return true
	}
	return false
}

// alterable says no where the configuration cannot change now.
func (m Machine) alterable() *problem.Problem {
	if p := m.busy(); p != nil {
		return p
	}
	if m.State == vm.StateError {
		return problem.New(problem.InvalidState, "the hypervisor has lost the virtual machine; it can only be deleted")
	}
	return nil
}

// active says whether a guest runs that has the configuration.
func (m Machine) active() bool { return m.State != vm.StateStopped }

// wanted is the configuration that the next start has.
func (m Machine) wanted() (vm.Spec, error) { return vm.Overlay(m.Spec, m.Pending) }

func (m Machine) update(c Update) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	before, err := m.wanted()
	if err != nil {
		return nil, err
	}
	next, fields := patched(before, c.UpdateData)
	if m.Spec.Adopted {
		fields = append(fields, untouchable(c.UpdateData)...)
	}
	fields = append(fields, contradictions(next, c.UpdateData)...)
	if next.CPUs != before.CPUs || next.MaxCPUs != before.MaxCPUs || next.MemoryMB != before.MemoryMB {
		fields = append(fields, c.Host.exceeded(next)...)
	}
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	live := next
	if m.active() {
		live = m.live(next)
	}
	return m.change(c.Intent, live, next, nil)
}

// change records the intent to have a configuration now and another at the next start, or that it holds if only we need
// to know.
func (m Machine) change(i events.Intent, live, next vm.Spec, sources map[string]vm.Source) ([]any, error) {
	change := vm.Change{Sources: sources}
	var err error
	if change.Changed, err = vm.Diff(m.Spec, live); err != nil {
		return nil, err
	}
	if change.Pending, err = vm.Diff(live, next); err != nil {
		return nil, err
	}
	ours := reflect.DeepEqual(change.Pending, m.Pending) || len(change.Pending)+len(m.Pending) == 0
	if ours && len(change.Changed) == 0 {
		return nil, nil
	}
	for name := range change.Changed {
		ours = ours && (name == "tags" || name == "on_drift") // the hypervisor does not know of these
	}
	if ours {
		return []any{vm.Updated{Change: change}}, nil
	}
	return []any{vm.UpdateRequested{Intent: i, Change: change}}, nil
}

// live is what a running guest can have of a configuration now: more CPUs, the memory that its balloon leaves it, links
// up and down, limits of disks, another password of its screen, and what is not the guest's.
func (m Machine) live(next vm.Spec) vm.Spec {
	s := m.Spec
	s.Description, s.Tags, s.Autostart, s.OnDrift = next.Description, next.Tags, next.Autostart, next.OnDrift
	if next.CPUs > s.CPUs && next.CPUs <= s.MaxCPUs {
		s.CPUs = next.CPUs
	}
	if next.MemoryMB <= m.BootMemoryMB {
		s.MemoryMB = next.MemoryMB
	}
	if s.VNC.Password != nil && next.VNC.Password != nil { // what began without one cannot be given one
		s.VNC.Password = next.VNC.Password
	}
	s.Networks = slices.Clone(s.Networks)
	for i := range s.Networks {
		if n := nicAt(next, s.Networks[i].Name); n >= 0 {
			s.Networks[i].Link = next.Networks[n].Link
		}
	}
	s.Disks = slices.Clone(s.Disks)
	for i := range s.Disks {
		if n := diskAt(next, s.Disks[i].Name); n >= 0 {
			s.Disks[i].Limits = next.Disks[n].Limits
		}
	}
	return s
}

func nicAt(s vm.Spec, name string) int {
	return slices.IndexFunc(s.Networks, func(n vm.NIC) bool { return n.Name == name })
}

func diskAt(s vm.Spec, name string) int {
	return slices.IndexFunc(s.Disks, func(d vm.Disk) bool { return d.Name == name })
}

// patched is a configuration with an update. Fields name what it has not.
func patched(s vm.Spec, u vm.UpdateData) (_ vm.Spec, fields []problem.Field) {
	set(&s.Description, u.Description)
	set(&s.Tags, u.Tags)
	set(&s.CPUs, u.CPUs)
	set(&s.MaxCPUs, u.MaxCPUs)
	if u.MaxCPUs == nil {
		s.MaxCPUs = max(s.MaxCPUs, s.CPUs)
	}
	set(&s.MemoryMB, u.MemoryMB)
	set(&s.CPUModel, u.CPUModel)
	set(&s.Machine, u.Machine)
	set(&s.Firmware, u.Firmware)
	set(&s.SecureBoot, u.SecureBoot)
	set(&s.TPM, u.TPM)
	set(&s.Boot, u.Boot)
	set(&s.Serial, u.Serial)
	if v := u.VNC; v != nil {
		set(&s.VNC.Enabled, v.Enabled)
		if v.Password != nil {
			s.VNC.Password = v.Password
		}
		if !s.VNC.Enabled || v.Password != nil && *v.Password == uuid.Nil {
			s.VNC.Password = nil
		}
	}
	set(&s.Agent, u.Agent)
	set(&s.RNG, u.RNG)
	set(&s.Autostart, u.Autostart)
	set(&s.OnDrift, u.OnDrift)
	s.Disks, s.Networks = slices.Clone(s.Disks), slices.Clone(s.Networks)
	for i, d := range u.Disks {
		at := diskAt(s, d.Name)
		if at < 0 {
			fields = append(fields, problem.Field{Field: fmt.Sprintf("disks[%d].name", i), Detail: "there is no such disk"})
			continue
		}
		disk := &s.Disks[at]
		set(&disk.Bus, d.Bus)
		set(&disk.Cache, d.Cache)
		set(&disk.Discard, d.Discard)
		set(&disk.Limits, d.Limits)
		disk.BootOrder = given(disk.BootOrder, d.BootOrder)
	}
	for i, n := range u.Networks {
		at := nicAt(s, n.Name)
		if at < 0 {
			fields = append(fields, problem.Field{Field: fmt.Sprintf("networks[%d].name", i), Detail: "there is no such NIC"})
			continue
		}
		nic := &s.Networks[at]
		set(&nic.Network, n.Network)
		set(&nic.Model, n.Model)
		set(&nic.Link, n.Link)
		if n.MAC != nil {
			nic.MAC = n.MAC
		}
		nic.MTU, nic.BootOrder = given(nic.MTU, n.MTU), given(nic.BootOrder, n.BootOrder)
	}
	return s, fields
}

// contradictions of a configuration with an update, by the fields of the update.
func contradictions(next vm.Spec, u vm.UpdateData) []problem.Field {
	var given []string
	places := map[string]string{} // of the devices' fields, in the update by that in the machine
	for i, d := range u.Disks {
		given = append(given, d.Name)
		places[fmt.Sprintf("disks[%d]", diskAt(next, d.Name))] = fmt.Sprintf("disks[%d]", i)
	}
	for i, n := range u.Networks {
		given = append(given, n.Name)
		places[fmt.Sprintf("networks[%d]", nicAt(next, n.Name))] = fmt.Sprintf("networks[%d]", i)
	}
	fields := vm.Contradictions(next, given...)
	for i, f := range fields {
		device, field, below := strings.Cut(f.Field, ".")
		if place, ok := places[device]; ok && below {
			fields[i].Field = place + "." + field
		}
	}
	return fields
}

// set puts a value that is given in place of another.
func set[T any](to *T, value *T) {
	if value != nil {
		*to = *value
	}
}

// given is a number that is given in place of another; 0 is none.
func given(now, value *int) *int {
	switch {
	case value == nil:
		return now
	case *value == 0:
		return nil
	}
	return value
}

// maxNICs and maxDisks are how many a machine has at most.
const (
	maxNICs  = 16
	maxDisks = 16
)

func (m Machine) attachNIC(c AttachNIC) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	next, err := m.wanted()
	if err != nil {
		return nil, err
	}
	if len(next.Networks) >= maxNICs {
		return nil, problem.New(problem.InvalidState, "the virtual machine has %d NICs, which is the most", maxNICs)
	}
	nic := c.NIC
	nic.Name = free("nic", func(name string) bool { return nicAt(next, name) >= 0 || nicAt(m.Spec, name) >= 0 })
	if nic.MAC == nil {
		mac := vm.DerivedMAC(c.Command, nic.Name)
		nic.MAC = &mac
	}
	next.Networks = append(slices.Clone(next.Networks), nic)
	if fields := vm.Contradictions(next, nic.Name); fields != nil {
		return nil, problem.Invalid(named(fields, fmt.Sprintf("networks[%d].", len(next.Networks)-1))...)
	}
	live := next
	if m.active() {
		live = m.Spec
		live.Networks = append(slices.Clone(live.Networks), nic)
	}
	return m.change(c.Intent, live, next, nil)
}

// named takes a prefix from the names of fields: those of a device that is alone in its request.
func named(fields []problem.Field, prefix string) []problem.Field {
	for i := range fields {
		if len(fields[i].Field) > len(prefix) && fields[i].Field[:len(prefix)] == prefix {
			fields[i].Field = fields[i].Field[len(prefix):]
		}
	}
	return fields
}

// free is the first name with a prefix that is not taken.
func free(prefix string, taken func(string) bool) string {
	for n := 0; ; n++ {
		if name := fmt.Sprintf("%s%d", prefix, n); !taken(name) {
			return name
		}
	}
}

func (m Machine) detachNIC(c DetachNIC) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	next, err := m.wanted()
	if err != nil {
		return nil, err
	}
	if nicAt(m.Spec, c.Name) < 0 {
		return nil, problem.New(problem.NotFound, "the virtual machine has no NIC %q", c.Name)
	}
	without := func(n vm.NIC) bool { return n.Name == c.Name }
	live := m.Spec
	live.Networks = slices.DeleteFunc(slices.Clone(live.Networks), without)
	next.Networks = slices.DeleteFunc(slices.Clone(next.Networks), without)
	return m.change(c.Intent, live, next, nil)
}
