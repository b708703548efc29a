package rest

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/pkg/vault"
)

// newVM fills in every default of a create, and says which node it is for.
func (s *Server) newVM(ctx context.Context, b *openapi.VMCreate) (node string, data any, err error) {
	if err := checkName(b.Name); err != nil {
		return "", nil, err
	}
	cpus := or(b.CPUs, 1)
	spec := vm.Spec{
		Name: b.Name, Backend: string(or(b.Backend, openapi.BackendQemu)), Description: or(b.Description, ""),
		Tags: append([]string{}, b.Tags...), CPUs: cpus, MaxCPUs: or(b.MaxCPUs, 0), MemoryMB: or(b.MemoryMB, 512),
		CPUModel: or(b.CPUModel, "host-model"), Machine: string(or(b.Machine, openapi.MachineQ35)), Firmware: string(or(b.Firmware, openapi.FirmwareBios)),
		SecureBoot: or(b.SecureBoot, false), TPM: or(b.TPM, false),
		Disks: []vm.Disk{}, Networks: []vm.NIC{}, Serial: or(b.Serial, true), Agent: or(b.Agent, false), RNG: or(b.RNG, true),
		Autostart: or(b.Autostart, false), OnDrift: string(or(b.OnDrift, openapi.OnDriftRecord)),
	}
	if err := s.built(spec.Backend); err != nil { // backends are features by the same name
		return "", nil, err
	}
	var fields []problem.Field
	for i, d := range b.Disks {
		spec.Disks = append(spec.Disks, s.newDisk(fmt.Sprintf("disks[%d].", i), d, &fields))
	}
	if b.Networks == nil {
		b.Networks = []openapi.VMNICCreate{{}}
	}
	for _, n := range b.Networks {
		spec.Networks = append(spec.Networks, newNIC(n))
	}
	spec.Boot = s.newBoot(or(b.Boot, openapi.VMBootCreate{}), &fields)
	screen := or(b.VNC, openapi.VMVNCCreate{})
	spec.VNC.Enabled = or(screen.Enabled, true)
	if or(screen.Password, "") != "" {
		spec.VNC.Password = &uuid.UUID{} // stands for the secret until all else is right
	}
	if fields == nil {
		checked := spec
		checked.MaxCPUs = max(spec.MaxCPUs, spec.CPUs) // 0 is for the node to fill in
		if spec.MaxCPUs > 0 {
			checked.MaxCPUs = spec.MaxCPUs
		}
		fields = vm.Contradictions(checked)
	}
	create := vm.CreateData{Spec: spec, Start: or(b.Start, false)}
	node = events.AnyNode
	if b.Node != nil {
		id, err := s.Node(ctx, *b.Node)
		switch p := problem.From(err); {
		case p != nil && p.Code == problem.NotFound:
			fields = append(fields, problem.Field{Field: "node", Detail: "there is no such node"})
		case err != nil:
			return "", nil, err
		}
		create.Node, node = &id, id.String()
	}
	if fields != nil {
		return "", nil, problem.Invalid(fields...)
	}
	if create.Spec.VNC.Password != nil {
		if create.Spec.VNC.Password, err = s.seal(ctx, *screen.Password); err != nil {
			return "", nil, err
		}
	}
	return node, create, nil
}

// seal keeps a secret apart from what is recorded.
func (s *Server) seal(ctx context.Context, secret string) (*uuid.UUID, error) {
	id, err := s.Secrets.Seal(ctx, []byte(secret))
	if err != nil {
		return nil, sealError(err)
	}
	return &id, nil
}

// sealError says what is missing where a secret cannot be kept.
func sealError(err error) error {
	if errors.Is(err, vault.ErrKey) {
		return fmt.Errorf("%w: %w", problem.New(problem.Unavailable,
			"this gateway keeps no secrets, as it lacks the installation's master key; its log says where the key belongs"), err)
	}
	return err
}

// newDisk is a disk with its defaults. Fields take what is wrong with it, below a prefix.
func (s *Server) newDisk(at string, d openapi.VMDiskCreate, fields *[]problem.Field) vm.Disk {
	return vm.Disk{
		Pool: or(d.Pool, "local"), SizeGB: d.SizeGB, Format: string(or(d.Format, openapi.DiskFormatQcow2)),
		Image: s.imagePath(at+"image", d.Image, fields), Bus: string(or(d.Bus, openapi.DiskBusVirtio)), BootOrder: d.BootOrder,
		Cache: string(or(d.Cache, openapi.DiskCacheDefault)), Discard: string(or(d.Discard, openapi.DiskDiscardUnmap)),
		Limits: or(d.Limits, vm.IOLimits{}),
	}
}

func newNIC(n openapi.VMNICCreate) vm.NIC {
	return vm.NIC{
		Network: or(n.Network, "default"), Model: string(or(n.Model, openapi.NICModelVirtio)), MAC: n.MAC, MTU: n.MTU,
		Link: string(or(n.Link, openapi.LinkStateUp)), BootOrder: n.BootOrder,
	}
}

func (s *Server) newBoot(b openapi.VMBootCreate, fields *[]problem.Field) vm.Boot {
	return vm.Boot{
		Kernel: s.imagePath("boot.kernel", b.Kernel, fields), Initrd: s.imagePath("boot.initrd", b.Initrd, fields),
		Cmdline: b.Cmdline, ISO: s.imagePath("boot.iso", b.ISO, fields),
	}
}

// imagePath is the clean path of a file on a node, nil for none.
func (s *Server) imagePath(field string, path *string, fields *[]problem.Field) *string {
	if path == nil {
		return nil
	}
	clean, err := s.imageFile(*path)
	if err != nil {
		*fields = append(*fields, problem.Field{Field: field, Detail: err.Error()})
	}
	return &clean
}
