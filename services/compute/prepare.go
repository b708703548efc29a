package compute

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
	"horcrux/pkg/events/pool"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// infoTime bounds the question to the hypervisor before a decision.
const infoTime = 5 * time.Second

func unavailable() *problem.Problem {
	return problem.New(problem.HypervisorUnavailable, "the hypervisor of the node does not answer")
}

// info asks the hypervisor what it is; not answering is a rejection.
func (s *Service) info(ctx context.Context) (hypervisor.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	info, err := s.Driver.Info(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "ask the hypervisor", "err", err)
		return info, unavailable()
	}
	return info, nil
}

// prepareEffect refuses a command while the hypervisor does not answer.
func (s *Service) prepareEffect(ctx context.Context, _ events.Command, decoded any) (any, error) {
	_, err := s.info(ctx)
	return decoded, err
}

// refusal names a field and says what is wrong with it.
type refusal func(field, format string, args ...any)

func into(fields *[]problem.Field) refusal {
	return func(field, format string, args ...any) {
		*fields = append(*fields, problem.Field{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
}

// growCPUs is up to how many CPUs a guest can be given while it runs, where the request does not say. Each that it may
// get costs it a little memory.
const growCPUs = 16

// limits are what a node can give to one machine.
func limits(info hypervisor.Info) vm.Host {
	return vm.Host{MaxCPUs: min(info.CPUs, info.MaxCPUs), MemoryMB: info.MemoryMB}
}

// prepareUpdate looks up what the node can give, and the files and networks that a change names.
func (s *Service) prepareUpdate(ctx context.Context, _ events.Command, decoded any) (any, error) {
	c := decoded.(vm.Update)
	info, err := s.info(ctx)
	if err != nil {
		return nil, err
	}
	c.Host = limits(info)
	var fields []problem.Field
	refuse := into(&fields)
	if c.Boot != nil {
		boot := *c.Boot
		s.boot(&boot, refuse)
		c.Boot = &boot
	}
	var names []string
	for _, n := range c.Networks {
		names = append(names, value(n.Network))
	}
	if err := s.networks(ctx, names, func(i int) string { return fmt.Sprintf("networks[%d].network", i) }, refuse); err != nil {
		return nil, err
	}
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	return c, nil
}

// prepareAttachNIC looks whether the node has the network.
func (s *Service) prepareAttachNIC(ctx context.Context, _ events.Command, decoded any) (any, error) {
	c := decoded.(vm.AttachNIC)
	var fields []problem.Field
	if err := s.networks(ctx, []string{c.NIC.Network}, func(int) string { return "network" }, into(&fields)); err != nil {
		return nil, err
	}
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	return c, nil
}

// prepareAttachDisk looks up the pool, and names the volume, whose name has to be another than that of a disk that was
// here before and whose volume was kept.
func (s *Service) prepareAttachDisk(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(vm.AttachDisk)
	if _, err := s.info(ctx); err != nil {
		return nil, err
	}
	var fields []problem.Field
	c.Disk.VolumeID = events.DerivedID(cmd.ID, "disk")
	c.Disk.VolumeName = fmt.Sprintf("vm-%s-%s", cmd.Target, c.Disk.VolumeID.String()[24:])
	if err := s.disk(ctx, "", &c.Disk, into(&fields)); err != nil {
		return nil, err
	}
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	return c, nil
}

// prepareCreate looks up what the decision about a new machine needs: the node's limits, the pools of its disks and
// the files it starts from. What is missing is a rejection that names the field.
func (s *Service) prepareCreate(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(create)
	if err := built(c.Spec); err != nil {
		return nil, err
	}
	info, err := s.info(ctx)
	if err != nil {
		return nil, err
	}
	c.Node, c.Host = s.Node, limits(info)
	if c.Spec.MaxCPUs == 0 {
		c.Spec.MaxCPUs = max(c.Spec.CPUs, min(c.Host.MaxCPUs, growCPUs))
	}
	var fields []problem.Field
	refuse := into(&fields)
	if c.data.Node != nil && *c.data.Node != s.Node {
		refuse("node", "is not a node of this installation")
	}
	c.Spec.Disks = append([]wire.Disk{}, c.Spec.Disks...) // an empty list, not null, where there are none
	for i := range c.Spec.Disks {
		d := &c.Spec.Disks[i]
		d.Name = fmt.Sprintf("disk%d", i)
		d.VolumeID = events.DerivedID(cmd.Target, "disk", i)
		d.VolumeName = fmt.Sprintf("vm-%s-disk-%d", cmd.Target, i)
		if err := s.disk(ctx, fmt.Sprintf("disks[%d].", i), d, refuse); err != nil {
			return nil, err
		}
	}
	c.Spec.Networks = append([]wire.NIC{}, c.Spec.Networks...)
	for i := range c.Spec.Networks {
		n := &c.Spec.Networks[i]
		n.Name = fmt.Sprintf("nic%d", i)
		if n.MAC == nil {
			mac := wire.DerivedMAC(cmd.Target, n.Name)
			n.MAC = &mac
		}
	}
	names := make([]string, len(c.Spec.Networks))
	for i, n := range c.Spec.Networks {
		names[i] = n.Network
	}
	if err := s.networks(ctx, names, func(i int) string { return fmt.Sprintf("networks[%d].network", i) }, refuse); err != nil {
		return nil, err
	}
	s.boot(&c.Spec.Boot, refuse)
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	return c.Create, nil
}

// built refuses what the contract knows and this service cannot do yet.
func built(spec wire.Spec) error {
	switch {
	case spec.Backend != "qemu":
		p := problem.New(problem.FeatureNotBuilt, "the backend %s is not in this build: USE flag %s", spec.Backend, spec.Backend)
		p.Fields = []problem.Field{{Field: "backend", Detail: "must be qemu"}}
		return p
	}
	return nil
}

// disk looks up where a disk is to be made, and from what.
func (s *Service) disk(ctx context.Context, at string, d *wire.Disk, refuse refusal) error {
	stream, err := s.pool(ctx, d.Pool)
	if err != nil {
		return err
	}
	if stream == "" {
		refuse(at+"pool", "there is no pool %q", d.Pool)
	}
	d.PoolID = stream.ID()
	s.file(at+"image", &d.Image, refuse)
	return nil
}

// boot checks the files that a machine starts from.
func (s *Service) boot(b *wire.Boot, refuse refusal) {
	s.file("boot.kernel", &b.Kernel, refuse)
	s.file("boot.initrd", &b.Initrd, refuse)
	s.file("boot.iso", &b.ISO, refuse)
}

// networks checks that the hypervisor has the networks of NICs.
func (s *Service) networks(ctx context.Context, wanted []string, field func(int) string, refuse refusal) error {
	if len(wanted) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	names, err := s.Driver.Networks(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "ask the hypervisor for its networks", "err", err)
		return unavailable()
	}
	for i, n := range wanted {
		if n != "" && !slices.Contains(names, n) {
			refuse(field(i), "the node has no network %q; an empty list of networks makes a machine without", n)
		}
	}
	return nil
}

// pool finds a pool by id or name; "" if there is none.
func (s *Service) pool(ctx context.Context, ref string) (events.Stream, error) {
	id, err := uuid.Parse(ref)
	if err != nil {
		return s.Store.Lookup(ctx, eventstore.Name{Scope: pool.NameScope, Value: ref})
	}
	stream := events.NewStream(pool.Kind, id)
	h, err := s.Store.Load(ctx, stream)
	if err != nil || h[0].Head.Version == 0 {
		return "", err
	}
	return stream, nil
}

// file checks a path that a request named and puts the resolved one in its place.
func (s *Service) file(field string, path **string, refuse refusal) {
	if *path == nil {
		return
	}
	real, err := resolve(s.ImageDirs, **path)
	if err != nil {
		refuse(field, "%s", err)
		return
	}
	*path = &real
}

var (
	errOutside = errors.New("must be an absolute path of a regular file under one of the node's image_dirs")
	errMissing = errors.New("there is no such file on the node")
)

// resolve follows a path to a regular file below one of dirs. It says nothing of files outside them, not even whether
// they exist.
func resolve(dirs []string, path string) (string, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || !within(dirs, path) {
		return "", errOutside
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", errMissing
	}
	if !within(dirs, real) {
		return "", errOutside
	}
	if st, err := os.Stat(real); err != nil || !st.Mode().IsRegular() {
		return "", errOutside
	}
	return real, nil
}

func within(dirs []string, path string) bool {
	for _, dir := range dirs {
		for _, d := range []string{dir, realDir(dir)} {
			if strings.HasPrefix(path, strings.TrimSuffix(d, "/")+"/") {
				return true
			}
		}
	}
	return false
}

func realDir(dir string) string {
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		return real
	}
	return dir
}
