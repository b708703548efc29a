package vm

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// The commands about disks. Each is a process: the volume is the storage service's.
type (
	// AttachDisk adds a disk, whose pool is looked up before.
	AttachDisk struct {
		events.Intent
		vm.AttachDiskData
	}
	// DetachDisk takes one away, with its volume or without.
	DetachDisk struct {
		events.Intent
		vm.DetachDiskData
	}
	// ResizeDisk makes one larger.
	ResizeDisk struct {
		events.Intent
		vm.ResizeDiskData
	}
	// ChangeDisk is the step of these in which the machine's configuration changes. Source is where a disk that is
	// attached lies.
	ChangeDisk struct {
		events.Intent
		Source *vm.Source
	}
)

func (m Machine) attachDisk(c AttachDisk) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	next, err := m.wanted()
	if err != nil {
		return nil, err
	}
	disk := c.Disk
	if m.Spec.Adopted {
		return nil, problem.New(problem.InvalidState, "the virtual machine was adopted; give it disks with the tools that made it")
	}
	if len(next.Disks) >= maxDisks {
		return nil, problem.New(problem.InvalidState, "the virtual machine has %d disks, which is the most", maxDisks)
	}
	if m.active() && disk.Bus == "sata" {
		return nil, problem.Invalid(problem.Field{Field: "bus", Detail: "a running guest takes no sata disk; use virtio or scsi, or stop it first"})
	}
	disk.Name = free("disk", func(name string) bool {
		strayed := slices.ContainsFunc(m.Strayed, func(d vm.Disk) bool { return d.Name == name })
		return strayed || diskAt(next, name) >= 0 || diskAt(m.Spec, name) >= 0 || takes(slices.Concat(next.Disks, m.Spec.Disks), name)
	})
	next.Disks = append(slices.Clone(next.Disks), disk)
	if fields := vm.Contradictions(next, disk.Name); fields != nil {
		return nil, problem.Invalid(named(fields, fmt.Sprintf("disks[%d].", len(next.Disks)-1))...)
	}
	return []any{vm.DiskChangeRequested{Operation: c.Operation, Attach: &disk, Running: m.active()}}, nil
}

// takes says whether a disk that others made may have the place that a name of ours leads to: vdb that of disk1, sdb too.
func takes(disks []vm.Disk, name string) bool {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "disk"))
	return err == nil && slices.ContainsFunc(disks, func(d vm.Disk) bool {
		return d.VolumeID == uuid.Nil && len(d.Name) == len("vda") && (int(d.Name[2]-'a') == n || int(d.Name[2]-'a') == n+1)
	})
}

func (m Machine) detachDisk(c DetachDisk) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	at := diskAt(m.Spec, c.Name)
	if at < 0 {
		return nil, problem.New(problem.NotFound, "the virtual machine has no disk %q", c.Name)
	}
	if m.active() && m.Spec.Disks[at].Bus == "sata" {
		return nil, problem.New(problem.InvalidState, "a sata disk cannot be taken from a running guest; stop it first")
	}
	if p := m.held(m.Spec.Disks[at]); p != nil {
		return nil, p
	}
	return []any{vm.DiskChangeRequested{Operation: c.Operation, Detach: c.Name, Keep: c.Keep, Running: m.active()}}, nil
}

func (m Machine) resizeDisk(c ResizeDisk) ([]any, error) {
	if p := m.alterable(); p != nil {
		return nil, p
	}
	at := diskAt(m.Spec, c.Name)
	if at < 0 {
		return nil, problem.New(problem.NotFound, "the virtual machine has no disk %q", c.Name)
	}
	if m.Spec.Disks[at].VolumeID == uuid.Nil {
		return nil, problem.New(problem.InvalidState, "the disk is in no pool of ours; resize it with the tools that made it")
	}
	switch size := m.Spec.Disks[at].SizeGB; {
	case c.SizeGB < size:
		return nil, problem.Invalid(problem.Field{Field: "size_gb", Detail: "is less than the disk has, and a disk only grows"})
	case c.SizeGB == size:
		return nil, problem.New(problem.InvalidState, "the disk has %d GiB already", size)
	}
	if p := m.held(m.Spec.Disks[at]); p != nil {
		return nil, p
	}
	return []any{vm.DiskChangeRequested{Operation: c.Operation, Resize: c.Name, SizeGB: c.SizeGB, Running: m.active()}}, nil
}

// changeDisk makes the change that the process under way is about.
func (m Machine) changeDisk(c ChangeDisk) ([]any, error) {
	if m.Process == uuid.Nil || m.Process != c.Operation {
		return nil, problem.New(problem.InvalidState, "the change of the disk has ended")
	}
	next, err := m.wanted()
	if err != nil {
		return nil, err
	}
	live := m.Spec
	live.Disks, next.Disks = slices.Clone(live.Disks), slices.Clone(next.Disks)
	var sources map[string]vm.Source
	switch d := m.Disk; {
	case d.Attach != nil && c.Source != nil:
		live.Disks, next.Disks = append(live.Disks, *d.Attach), append(next.Disks, *d.Attach)
		sources = map[string]vm.Source{d.Attach.Name: *c.Source}
	case d.Detach != "":
		at := diskAt(live, d.Detach)
		if at < 0 {
			return nil, nil // it went behind our back
		}
		live.Disks = slices.Delete(live.Disks, at, at+1)
		next.Disks = slices.DeleteFunc(next.Disks, func(o vm.Disk) bool { return o.Name == d.Detach })
	case d.Resize != "":
		for _, s := range []vm.Spec{live, next} {
			if at := diskAt(s, d.Resize); at >= 0 {
				s.Disks[at].SizeGB = d.SizeGB
			}
		}
	}
	return m.change(c.Intent, live, next, sources)
}
