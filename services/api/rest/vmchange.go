package rest

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/submit"
)

// UpdateVM implements StrictServerInterface, as the methods below do.
func (s *Server) UpdateVM(ctx context.Context, r UpdateVMRequestObject) (UpdateVMResponseObject, error) {
	return s.prepared(ctx, named(&vm.Resource, r.ID), "update", func(ctx context.Context) (any, error) { return s.vmUpdate(ctx, r.Body) })
}

func (s *Server) AttachVMDisk(ctx context.Context, r AttachVMDiskRequestObject) (AttachVMDiskResponseObject, error) {
	return s.prepared(ctx, named(&vm.Resource, r.ID), "attach_disk", func(context.Context) (any, error) {
		var fields []problem.Field
		disk := s.newDisk("", *r.Body, &fields)
		if fields != nil {
			return nil, problem.Invalid(fields...)
		}
		return vm.AttachDiskData{Disk: disk}, nil
	})
}

func (s *Server) DetachVMDisk(ctx context.Context, r DetachVMDiskRequestObject) (DetachVMDiskResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "detach_disk", vm.DetachDiskData{Name: r.Disk, Keep: or(r.Params.Keep, false)})
}

func (s *Server) ResizeVMDisk(ctx context.Context, r ResizeVMDiskRequestObject) (ResizeVMDiskResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "resize_disk", vm.ResizeDiskData{Name: r.Disk, SizeGB: r.Body.SizeGB})
}

func (s *Server) AttachVMNIC(ctx context.Context, r AttachVMNICRequestObject) (AttachVMNICResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "attach_network", vm.AttachNICData{NIC: newNIC(*r.Body)})
}

func (s *Server) DetachVMNIC(ctx context.Context, r DetachVMNICRequestObject) (DetachVMNICResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "detach_network", vm.DetachNICData{Name: r.NIC})
}

// prepared asks for a command whose data is made only if the call is no repeat.
func (s *Server) prepared(ctx context.Context, r ref, verb string, prepare func(context.Context) (any, error)) (answer, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		data, err := prepare(ctx)
		if err != nil {
			return submit.Intent{}, err
		}
		return s.intent(ctx, r, verb, data)
	})
}

// vmUpdate is what a PATCH changes. A password is sealed last, when all else is right.
func (s *Server) vmUpdate(ctx context.Context, b *openapi.VMUpdate) (vm.UpdateData, error) {
	u := vm.UpdateData{
		Description: b.Description, CPUs: b.CPUs, MaxCPUs: b.MaxCPUs, MemoryMB: b.MemoryMB, CPUModel: b.CPUModel,
		Machine: (*string)(b.Machine), Firmware: (*string)(b.Firmware), SecureBoot: b.SecureBoot, TPM: b.TPM,
		Serial: b.Serial, Agent: b.Agent, RNG: b.RNG, Autostart: b.Autostart, OnDrift: (*string)(b.OnDrift),
	}
	if b.Tags != nil {
		u.Tags = &b.Tags
	}
	var fields []problem.Field
	if b.Boot != nil {
		boot := s.newBoot(*b.Boot, &fields)
		u.Boot = &boot
	}
	for _, d := range b.Disks {
		u.Disks = append(u.Disks, vm.DiskUpdate{
			Name: d.Name, Bus: (*string)(d.Bus), BootOrder: d.BootOrder, Cache: (*string)(d.Cache), Discard: (*string)(d.Discard), Limits: d.Limits,
		})
	}
	for _, n := range b.Networks {
		u.Networks = append(u.Networks, vm.NICUpdate{
			Name: n.Name, Network: n.Network, Model: (*string)(n.Model), MAC: n.MAC, MTU: n.MTU, Link: (*string)(n.Link), BootOrder: n.BootOrder,
		})
	}
	if fields != nil {
		return u, problem.Invalid(fields...)
	}
	if b.VNC == nil {
		return u, nil
	}
	u.VNC = &vm.VNCUpdate{Enabled: b.VNC.Enabled}
	switch {
	case b.VNC.Password == nil:
	case *b.VNC.Password == "":
		u.VNC.Password = &uuid.UUID{}
	default:
		sealed, err := s.seal(ctx, *b.VNC.Password)
		if err != nil {
			return u, err
		}
		u.VNC.Password = sealed
	}
	return u, nil
}
