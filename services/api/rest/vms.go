package rest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/submit"
)

// ListVMs implements StrictServerInterface, as the methods below do.
func (s *Server) ListVMs(ctx context.Context, _ ListVMsRequestObject) (ListVMsResponseObject, error) {
	return s.list(ctx, &vm.Resource, nil)
}

func (s *Server) GetVM(ctx context.Context, r GetVMRequestObject) (GetVMResponseObject, error) {
	return s.show(ctx, named(&vm.Resource, r.ID))
}

func (s *Server) ListVMHistory(ctx context.Context, r ListVMHistoryRequestObject) (ListVMHistoryResponseObject, error) {
	return s.history(ctx, named(&vm.Resource, r.ID))
}

func (s *Server) CreateVM(ctx context.Context, r CreateVMRequestObject) (CreateVMResponseObject, error) {
	return s.create(ctx, &vm.Resource, func(ctx context.Context) (string, any, error) { return s.newVM(ctx, r.Body) })
}

func (s *Server) UpdateVM(ctx context.Context, r UpdateVMRequestObject) (UpdateVMResponseObject, error) {
	data := vm.UpdateData{Description: r.Body.Description, Autostart: r.Body.Autostart}
	if r.Body.Tags != nil {
		data.Tags = &r.Body.Tags
	}
	return s.command(ctx, named(&vm.Resource, r.ID), "update", data)
}

func (s *Server) DeleteVM(ctx context.Context, r DeleteVMRequestObject) (DeleteVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "delete",
		vm.DeleteData{Force: or(r.Params.Force, false), KeepDisks: or(r.Params.KeepDisks, false)})
}

func (s *Server) StartVM(ctx context.Context, r StartVMRequestObject) (StartVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "start", nil)
}

func (s *Server) StopVM(ctx context.Context, r StopVMRequestObject) (StopVMResponseObject, error) {
	if or(r.Params.Force, true) {
		return s.command(ctx, named(&vm.Resource, r.ID), "stop", vm.StopData{Force: true})
	}
	return s.shutdown(ctx, r.ID, r.Body)
}

func (s *Server) ShutdownVM(ctx context.Context, r ShutdownVMRequestObject) (ShutdownVMResponseObject, error) {
	return s.shutdown(ctx, r.ID, r.Body)
}

func (s *Server) PauseVM(ctx context.Context, r PauseVMRequestObject) (PauseVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "pause", nil)
}

func (s *Server) ResumeVM(ctx context.Context, r ResumeVMRequestObject) (ResumeVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "resume", nil)
}

func (s *Server) ResetVM(ctx context.Context, r ResetVMRequestObject) (ResetVMResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "reset", nil)
}

func (s *Server) RevertVM(ctx context.Context, r RevertVMRequestObject) (RevertVMResponseObject, error) {
	return s.revert(ctx, named(&vm.Resource, r.ID), r.Body.To)
}

func (s *Server) shutdown(ctx context.Context, id string, b *openapi.VMShutdown) (answer, error) {
	timeout := or(or(b, openapi.VMShutdown{}).TimeoutS, 120)
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		want, err := s.intent(ctx, named(&vm.Resource, id), "shutdown", vm.StopData{TimeoutS: timeout})
		want.Takes = time.Duration(timeout) * time.Second
		return want, err
	})
}

// or is what a pointer points to, or a default.
func or[T any](p *T, def T) T {
	if p == nil {
		return def
	}
	return *p
}

// reserved are names that are a path of their own below a collection.
var reserved = []string{"unmanaged", "import"}

// checkName refuses names that a path could not tell from something else. Their form is checked by the document.
func checkName(name string) error {
	_, err := uuid.Parse(name)
	switch {
	case err == nil:
		return problem.Invalid(problem.Field{Field: "name", Detail: "must not be a UUID"})
	case slices.Contains(reserved, name):
		return problem.Invalid(problem.Field{Field: "name", Detail: fmt.Sprintf("%q is a path of its own", name)})
	}
	return nil
}

// newVM fills in every default of a create, and says which node it is for.
func (s *Server) newVM(ctx context.Context, b *openapi.VMCreate) (node string, data any, err error) {
	if err := checkName(b.Name); err != nil {
		return "", nil, err
	}
	spec := vm.Spec{
		Name: b.Name, Backend: string(or(b.Backend, openapi.BackendQemu)), Description: or(b.Description, ""),
		Tags: append([]string{}, b.Tags...), CPUs: or(b.CPUs, 1), MemoryMB: or(b.MemoryMB, 512),
		CPUModel: or(b.CPUModel, "host-model"), Machine: string(or(b.Machine, openapi.MachineQ35)), Firmware: string(or(b.Firmware, openapi.FirmwareBios)),
		Disks: []vm.Disk{}, Networks: []vm.NIC{}, Autostart: or(b.Autostart, false), OnDrift: "record",
	}
	if err := s.built(spec.Backend); err != nil { // backends are features by the same name
		return "", nil, err
	}
	var fields []problem.Field
	file := func(field string, path *string) *string {
		if path == nil {
			return nil
		}
		clean, err := s.imageFile(*path)
		if err != nil {
			fields = append(fields, problem.Field{Field: field, Detail: err.Error()})
		}
		return &clean
	}
	for i, d := range b.Disks {
		spec.Disks = append(spec.Disks, vm.Disk{
			Pool: or(d.Pool, "local"), SizeGB: d.SizeGB, Format: string(or(d.Format, openapi.DiskFormatQcow2)),
			Image: file(fmt.Sprintf("disks[%d].image", i), d.Image), Bus: string(or(d.Bus, openapi.DiskBusVirtio)), BootOrder: d.BootOrder,
		})
	}
	if b.Networks == nil {
		b.Networks = []openapi.VMNICCreate{{}}
	}
	for _, n := range b.Networks {
		spec.Networks = append(spec.Networks, vm.NIC{
			Network: or(n.Network, "default"), Model: string(or(n.Model, openapi.NICModelVirtio)), MAC: n.MAC,
		})
	}
	boot := or(b.Boot, openapi.VMBootCreate{})
	spec.Boot = vm.Boot{
		Kernel: file("boot.kernel", boot.Kernel), Initrd: file("boot.initrd", boot.Initrd), Cmdline: boot.Cmdline, ISO: file("boot.iso", boot.ISO),
	}
	if fields == nil {
		fields = contradictions(spec)
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
	return node, create, nil
}

// contradictions are values of a spec that are right one by one and of no use together.
func contradictions(spec vm.Spec) (fields []problem.Field) {
	wrong := func(field, detail string) { fields = append(fields, problem.Field{Field: field, Detail: detail}) }
	if spec.Boot.Kernel == nil && spec.Boot.Initrd != nil {
		wrong("boot.initrd", "needs boot.kernel")
	}
	if spec.Boot.Kernel == nil && spec.Boot.Cmdline != nil {
		wrong("boot.cmdline", "needs boot.kernel")
	}
	repeats(spec.Disks, func(d vm.Disk) *int { return d.BootOrder }, func(i, first int) {
		wrong(fmt.Sprintf("disks[%d].boot_order", i), fmt.Sprintf("is that of disks[%d]", first))
	})
	repeats(spec.Networks, func(n vm.NIC) *string { return n.MAC }, func(i, first int) {
		wrong(fmt.Sprintf("networks[%d].mac", i), fmt.Sprintf("is that of networks[%d]", first))
	})
	return fields
}

// repeats finds the items whose value, where they have one, is that of an item before them.
func repeats[T any, V comparable](items []T, value func(T) *V, found func(i, first int)) {
	seen := map[V]int{}
	for i, item := range items {
		v := value(item)
		if v == nil {
			continue
		}
		if first, again := seen[*v]; again {
			found(i, first)
			continue
		}
		seen[*v] = i
	}
}

var (
	errRelative = errors.New("must be an absolute path")
	errOutside  = errors.New("must lie under one of the image_dirs")
)

// imageFile cleans the path of a file on a node and checks that it lies under an image dir, through symbolic links
// too. The file may be on another host: whether it exists is for the node to say, which checks all of this again.
func (s *Server) imageFile(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return path, errRelative
	}
	clean := filepath.Clean(path)
	inside := func(path string) bool {
		return slices.ContainsFunc(s.ImageDirs, func(dir string) bool {
			real, err := filepath.EvalSymlinks(dir)
			return under(dir, path) || err == nil && under(real, path)
		})
	}
	real, err := filepath.EvalSymlinks(clean)
	switch {
	case err == nil && !inside(real), err != nil && !inside(clean), err != nil && !errors.Is(err, os.ErrNotExist):
		return clean, errOutside
	}
	return clean, nil
}

func under(dir, path string) bool {
	rest, err := filepath.Rel(dir, path)
	return err == nil && rest != "." && rest != ".." && !strings.HasPrefix(rest, "../")
}
