package compute

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// repairTime is how long a repair may keep trying.
const repairTime = 10 * time.Minute

// repairIntent is the intent of a repair that may be wanted.
func (s *Service) repairIntent() events.Intent {
	return events.Intent{Type: "vm.repair", Command: events.NewID(), Deadline: s.Clock().Add(repairTime)}
}

// inspection is a domain's configuration as the decider compares it.
func (s *Service) inspection(d hypervisor.Description, cause string) vm.Inspected {
	if d.Running != nil { // what runs tells of a network that is a bridge the bridge alone
		for i := range d.Running.NICs {
			for _, n := range d.Next.NICs {
				if n.MAC == d.Running.NICs[i].MAC {
					d.Running.NICs[i].Network = n.Network
				}
			}
		}
	}
	out := vm.Inspected{Node: s.Node, Next: configuration(d.Next), Transient: d.Transient, Cause: cause, Repair: s.repairIntent(), At: s.Clock()}
	if d.Running != nil {
		running := configuration(*d.Running)
		out.Running = &running
	}
	return out
}

func configuration(s hypervisor.Spec) vm.Configuration {
	c := vm.Configuration{
		CPUs: s.CPUs, MaxCPUs: s.MaxCPUs, MemoryMB: s.MemoryMB, Description: s.Description, Autostart: s.Autostart,
		NICs: []wire.NIC{}, Disks: []wire.Disk{}, Sources: []wire.Source{},
	}
	for _, n := range s.NICs {
		nic := wire.NIC{Network: n.Network, Model: n.Model, MAC: &n.MAC, Link: wire.LinkUp, MTU: some(n.MTU), BootOrder: some(n.BootOrder)}
		if n.LinkDown {
			nic.Link = wire.LinkDown
		}
		c.NICs = append(c.NICs, nic)
	}
	for _, d := range s.Disks {
		c.Disks = append(c.Disks, wire.Disk{
			Name: d.Target, SizeGB: d.SizeBytes >> 30, Format: d.Format, Bus: d.Bus, BootOrder: some(d.BootOrder), Cache: d.Cache, Discard: d.Discard,
			Limits: wire.IOLimits{ReadIOPS: d.Limits.ReadIOPS, WriteIOPS: d.Limits.WriteIOPS, ReadMB: d.Limits.ReadBytes >> 20, WriteMB: d.Limits.WriteBytes >> 20},
		})
		c.Sources = append(c.Sources, wire.Source{Type: d.Type, Path: d.Path, Format: d.Format})
	}
	return c
}

// some is nil for 0, which stands for none.
func some(n int) *int {
	if n == 0 {
		return nil
	}
	return &n
}

// repair brings back what others changed: the domain, its configuration, its state. It looks first: a repair may have
// been made by an earlier life of ours.
func (s *Service) repair(ctx context.Context, id uuid.UUID, m vm.Machine) (any, error) {
	wanted, err := wire.Overlay(m.Spec, m.Pending)
	if err != nil {
		return nil, err
	}
	next, err := s.spec(ctx, id, wanted, m.Sources)
	if err != nil {
		return nil, err
	}
	d, err := s.Driver.Domain(ctx, id)
	if errors.Is(err, hypervisor.ErrNotFound) {
		if m.Spec.Adopted {
			return nil, problem.New(problem.EffectFailed, "the guest was made by others, who have to bring it back")
		}
		d, err = s.Driver.Define(ctx, next)
	}
	if err != nil {
		return nil, driverError(err)
	}
	if m.Wanted == wire.StateStopped {
		if err := s.Driver.Destroy(ctx, id); err != nil {
			return nil, driverError(err)
		}
	}
	if err := s.enforce(ctx, id, m, m.Spec, wanted); err != nil {
		return nil, driverError(err)
	}
	if d.Autostart != m.Spec.Autostart {
		if err := s.Driver.SetAutostart(ctx, id, m.Spec.Autostart); err != nil {
			return nil, driverError(err)
		}
	}
	if err := s.power(ctx, id, observed(d.State), m.Wanted); err != nil {
		return nil, driverError(err)
	}
	left, err := s.Driver.Describe(ctx, id, 0)
	if err != nil {
		return nil, driverError(err)
	}
	inspected := s.inspection(left, "repaired")
	return vm.Settled{State: observed(left.State), Left: &inspected}, nil
}

// power leads a domain from one state to another, of those in which a guest runs.
func (s *Service) power(ctx context.Context, id uuid.UUID, from, to wire.State) error {
	if to == wire.StateStopped {
		return nil
	}
	if from == wire.StateStopped {
		if err := s.Driver.Start(ctx, id); err != nil {
			return err
		}
	}
	if to == wire.StatePaused {
		return s.Driver.Pause(ctx, id)
	}
	return s.Driver.Resume(ctx, id)
}

var guestName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// prepareImport looks at the domain that is to be adopted.
func (s *Service) prepareImport(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(vm.Import)
	if _, err := s.info(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	d, err := s.Driver.Describe(ctx, cmd.Target, 0)
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return nil, problem.Invalid(problem.Field{Field: "native_id", Detail: "the hypervisor has no such guest"})
	case err != nil:
		s.Log.Warn("look at a guest that is to be adopted", "vm", cmd.Target, "err", err)
		return nil, unavailable()
	case d.Transient:
		return nil, problem.Invalid(problem.Field{Field: "native_id", Detail: "the hypervisor forgets the guest once it stops; define it first, with virsh define"})
	case !guestName.MatchString(d.Name):
		return nil, problem.Invalid(problem.Field{Field: "native_id", Detail: fmt.Sprintf(
			"the guest's name %q is none that a machine can have (a-z, 0-9 and -); rename it first, with virsh domrename", d.Name)})
	}
	c.Node = s.Node
	c.Spec, c.Sources = adoptable(d)
	return c, nil
}

// adoptable is the configuration of a guest that others made.
func adoptable(d hypervisor.Description) (wire.Spec, []wire.Source) {
	n := d.Next
	c := configuration(n)
	for i := range c.NICs {
		c.NICs[i].Name = fmt.Sprintf("nic%d", i)
	}
	spec := wire.Spec{
		Name: d.Name, Backend: "qemu", Description: n.Description, Tags: []string{}, CPUs: n.CPUs, MaxCPUs: n.MaxCPUs, MemoryMB: n.MemoryMB,
		CPUModel: n.CPUModel, Machine: n.Machine, Firmware: n.Firmware, SecureBoot: n.SecureBoot, TPM: n.TPM, Disks: c.Disks, Networks: c.NICs,
		Boot:   wire.Boot{Kernel: path(n.Kernel), Initrd: path(n.Initrd), Cmdline: path(n.Cmdline), ISO: path(n.ISO)},
		Serial: n.Serial, VNC: wire.VNC{Enabled: n.VNC}, Agent: n.Agent, RNG: n.RNG, Autostart: d.Autostart, OnDrift: "record", Adopted: true,
	}
	return spec, c.Sources
}

func path(p string) *string {
	if p == "" {
		return nil
	}
	return &p
}

// adopt marks the guest, and leaves it alone otherwise.
func (s *Service) adopt(ctx context.Context, id uuid.UUID) (any, error) {
	if err := s.Driver.Adopt(ctx, id); err != nil {
		return nil, driverError(err)
	}
	d, err := s.Driver.Domain(ctx, id)
	if err != nil {
		return nil, driverError(err)
	}
	return vm.Adopted{NativeID: d.NativeID, Accelerator: string(s.Accelerator), State: observed(d.State)}, nil
}
