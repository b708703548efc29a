package compute

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	wire "horcrux/pkg/events/vm"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// Secrets opens what is sealed.
type Secrets interface {
	Open(ctx context.Context, id uuid.UUID) ([]byte, error)
}

// change brings the recorded change to the hypervisor: to what runs first, so that what stays has its place there when
// the configuration of the next start is written.
func (s *Service) change(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	live, err := wire.Overlay(m.Spec, m.Update.Changed)
	if err != nil {
		return err
	}
	next, err := wire.Overlay(live, m.Update.Pending)
	if err != nil {
		return err
	}
	if hardware(m) {
		m.Sources = maps.Clone(m.Sources)
		maps.Copy(m.Sources, m.Update.Sources)
		if err := s.bring(ctx, id, m, live, next); err != nil {
			return err
		}
	}
	if live.Description != m.Spec.Description { // last: it cannot be refused
		if err := s.Driver.SetDescription(ctx, id, live.Description); err != nil {
			return err
		}
	}
	if live.Autostart != m.Spec.Autostart {
		return s.Driver.SetAutostart(ctx, id, live.Autostart)
	}
	return nil
}

// specs are what the driver is told of what runs, and of its next start.
func (s *Service) specs(ctx context.Context, id uuid.UUID, m vm.Machine, live, next wire.Spec) (now, later hypervisor.Spec, err error) {
	if now, err = s.spec(ctx, id, live, m.Sources); err != nil {
		return now, later, err
	}
	later, err = s.spec(ctx, id, next, m.Sources)
	return now, later, err
}

// bring gives what runs one configuration in place of the recorded one, and its next start another.
func (s *Service) bring(ctx context.Context, id uuid.UUID, m vm.Machine, live, next wire.Spec) error {
	now, later, err := s.specs(ctx, id, m, live, next)
	if err != nil {
		return err
	}
	was, err := s.spec(ctx, id, m.Spec, m.Sources)
	if err != nil {
		return err
	}
	now.Gone = missing(was, now)
	later.Gone = now.Gone
	if live.MemoryMB == m.Spec.MemoryMB {
		now.MemoryMB = 0
	}
	if err := s.Driver.Adjust(ctx, now); err != nil {
		return err
	}
	return s.Driver.Configure(ctx, later)
}

// enforce is bring where others may have changed what is there: devices that are not recorded go.
func (s *Service) enforce(ctx context.Context, id uuid.UUID, m vm.Machine, live, next wire.Spec) error {
	now, later, err := s.specs(ctx, id, m, live, next)
	if err != nil {
		return err
	}
	seen, err := s.Driver.Describe(ctx, id, 0)
	if err != nil {
		return err
	}
	if m.Spec.Adopted {
		now.MemoryMB = 0 // what its balloon had when it was adopted nobody knows
	}
	later.Gone = missing(seen.Next, later)
	if seen.Running != nil {
		now.Gone = missing(*seen.Running, now)
	}
	if err := s.Driver.Adjust(ctx, now); err != nil {
		return err
	}
	return s.Driver.Configure(ctx, later)
}

// missing are the devices that one configuration has and another has not.
func missing(was, now hypervisor.Spec) (d hypervisor.Devices) {
	for _, o := range was.Disks {
		if !slices.ContainsFunc(now.Disks, func(n hypervisor.Disk) bool { return n.Path == o.Path }) {
			d.Disks = append(d.Disks, o)
		}
	}
	for _, o := range was.NICs {
		if !slices.ContainsFunc(now.NICs, func(n hypervisor.NIC) bool { return n.MAC == o.MAC }) {
			d.NICs = append(d.NICs, o)
		}
	}
	return d
}

// hardware says whether a change is of more than what has calls of its own.
func hardware(m vm.Machine) bool {
	for name := range m.Update.Changed {
		switch name {
		case "description", "autostart", "tags", "on_drift":
		default:
			return true
		}
	}
	return len(m.Update.Pending)+len(m.Pending) > 0
}

// restore gives a running guest, and its next start, what they had before a change that failed.
func (s *Service) restore(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	if !hardware(m) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	wanted, err := wire.Overlay(m.Spec, m.Pending)
	if err != nil {
		return err
	}
	before := m
	if before.Spec, err = wire.Overlay(m.Spec, m.Update.Changed); err != nil { // what may have been brought
		return err
	}
	before.Sources = maps.Clone(m.Sources)
	maps.Copy(before.Sources, m.Update.Sources)
	return s.bring(ctx, id, before, m.Spec, wanted)
}

// spec is the domain that a configuration means.
func (s *Service) spec(ctx context.Context, id uuid.UUID, c wire.Spec, sources map[string]wire.Source) (hypervisor.Spec, error) {
	out := hypervisor.Spec{
		ID: id, Name: c.Name, Description: c.Description, CPUs: c.CPUs, MaxCPUs: c.MaxCPUs, MemoryMB: c.MemoryMB, CPUModel: c.CPUModel,
		Machine: c.Machine, Firmware: c.Firmware, SecureBoot: c.SecureBoot, TPM: c.TPM, Accelerator: s.Accelerator, Autostart: c.Autostart,
		Kernel: value(c.Boot.Kernel), Initrd: value(c.Boot.Initrd), Cmdline: value(c.Boot.Cmdline), ISO: value(c.Boot.ISO),
		Serial: c.Serial, VNC: c.VNC.Enabled, Agent: c.Agent, RNG: c.RNG, Adopted: c.Adopted,
	}
	if c.VNC.Enabled && c.VNC.Password != nil {
		password, err := s.Secrets.Open(ctx, *c.VNC.Password)
		if err != nil {
			return out, fmt.Errorf("%w: %w", engine.ErrAgain, err)
		}
		out.VNCPassword = string(password)
	}
	for i, d := range c.Disks {
		src, known := sources[d.Name]
		if !known {
			return out, fmt.Errorf("nobody knows where %s lies", d.Name)
		}
		target := ""
		if d.VolumeID == uuid.Nil {
			target = d.Name // its makers' name for it
		}
		out.Disks = append(out.Disks, hypervisor.Disk{
			Index: index(d.Name, "disk", i), Target: target, Type: src.Type, Path: src.Path, Format: src.Format, SizeBytes: d.SizeGB << 30, Bus: d.Bus,
			BootOrder: value(d.BootOrder), Cache: d.Cache, Discard: d.Discard,
			Limits: hypervisor.Limits{
				ReadIOPS: d.Limits.ReadIOPS, WriteIOPS: d.Limits.WriteIOPS,
				ReadBytes: d.Limits.ReadMB << 20, WriteBytes: d.Limits.WriteMB << 20,
			},
		})
	}
	for i, n := range c.Networks {
		out.NICs = append(out.NICs, hypervisor.NIC{
			Network: n.Network, Model: n.Model, MAC: cmp.Or(value(n.MAC), wire.DerivedMAC(id, strconv.Itoa(index(n.Name, "nic", i)))), MTU: value(n.MTU), LinkDown: n.Link == wire.LinkDown, BootOrder: value(n.BootOrder),
		})
	}
	return out, nil
}

// index is the number in a device's name.
func index(name, prefix string, otherwise int) int {
	if n, err := strconv.Atoi(strings.TrimPrefix(name, prefix)); err == nil {
		return n
	}
	return otherwise
}

// value is what a pointer points to, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
