package compute

import (
	"context"
	"fmt"
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
	if live.Description != m.Spec.Description {
		if err := s.Driver.SetDescription(ctx, id, live.Description); err != nil {
			return err
		}
	}
	if live.Autostart != m.Spec.Autostart {
		if err := s.Driver.SetAutostart(ctx, id, live.Autostart); err != nil {
			return err
		}
	}
	if !hardware(m) {
		return nil
	}
	sources := m.Sources
	if m.Update.Sources != nil {
		sources = *m.Update.Sources
	}
	return s.bring(ctx, id, live, next, sources)
}

// bring gives what runs one configuration, and its next start another.
func (s *Service) bring(ctx context.Context, id uuid.UUID, live, next wire.Spec, sources []wire.Source) error {
	now, err := s.spec(ctx, id, live, sources)
	if err != nil {
		return err
	}
	if err := s.Driver.Adjust(ctx, now); err != nil {
		return err
	}
	later, err := s.spec(ctx, id, next, sources)
	if err != nil {
		return err
	}
	return s.Driver.Configure(ctx, later)
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

// restore gives a running guest what it had before a change that failed.
func (s *Service) restore(ctx context.Context, id uuid.UUID, m vm.Machine) error {
	if !hardware(m) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	before, err := s.spec(ctx, id, m.Spec, m.Sources)
	if err != nil {
		return err
	}
	return s.Driver.Adjust(ctx, before)
}

// spec is the domain that a configuration means.
func (s *Service) spec(ctx context.Context, id uuid.UUID, c wire.Spec, sources []wire.Source) (hypervisor.Spec, error) {
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
	if len(sources) != len(c.Disks) {
		return out, fmt.Errorf("%d sources for %d disks", len(sources), len(c.Disks))
	}
	for i, src := range sources {
		d := c.Disks[i]
		target := ""
		if d.VolumeID == uuid.Nil {
			target = d.Name // its makers' name for it
		}
		out.Disks = append(out.Disks, hypervisor.Disk{
			Index: index(d.Name, i), Target: target, Type: src.Type, Path: src.Path, Format: src.Format, SizeBytes: d.SizeGB << 30, Bus: d.Bus,
			BootOrder: value(d.BootOrder), Cache: d.Cache, Discard: d.Discard,
			Limits: hypervisor.Limits{
				ReadIOPS: d.Limits.ReadIOPS, WriteIOPS: d.Limits.WriteIOPS,
				ReadBytes: d.Limits.ReadMB << 20, WriteBytes: d.Limits.WriteMB << 20,
			},
		})
	}
	for _, n := range c.Networks {
		out.NICs = append(out.NICs, hypervisor.NIC{
			Network: n.Network, Model: n.Model, MAC: value(n.MAC), MTU: value(n.MTU), LinkDown: n.Link == wire.LinkDown, BootOrder: value(n.BootOrder),
		})
	}
	return out, nil
}

// index is the number in a disk's name.
func index(name string, otherwise int) int {
	if n, err := strconv.Atoi(strings.TrimPrefix(name, "disk")); err == nil {
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
