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
	c.Node = s.Node
	c.Host.MaxCPUs, c.Host.MemoryMB = min(info.CPUs, info.MaxCPUs), info.MemoryMB
	var fields []problem.Field
	refuse := func(field, format string, args ...any) {
		fields = append(fields, problem.Field{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
	if c.data.Node != nil && *c.data.Node != s.Node {
		refuse("node", "is not a node of this installation")
	}
	c.Spec.Disks = append([]wire.Disk{}, c.Spec.Disks...) // an empty list, not null, where there are none
	for i := range c.Spec.Disks {
		d := &c.Spec.Disks[i]
		at := fmt.Sprintf("disks[%d].", i)
		stream, err := s.pool(ctx, d.Pool)
		if err != nil {
			return nil, err
		}
		if stream == "" {
			refuse(at+"pool", "there is no pool %q", d.Pool)
		}
		d.PoolID = stream.ID()
		d.VolumeID = events.DerivedID(cmd.Target, "disk", i)
		d.VolumeName = fmt.Sprintf("vm-%s-disk-%d", cmd.Target, i)
		s.file(at+"image", &d.Image, refuse)
	}
	if err := s.networks(ctx, c.Spec.Networks, refuse); err != nil {
		return nil, err
	}
	s.file("boot.kernel", &c.Spec.Boot.Kernel, refuse)
	s.file("boot.initrd", &c.Spec.Boot.Initrd, refuse)
	s.file("boot.iso", &c.Spec.Boot.ISO, refuse)
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
	case spec.Firmware != "bios":
		p := problem.New(problem.NotImplemented, "firmware %s is not written yet", spec.Firmware)
		p.Fields = []problem.Field{{Field: "firmware", Detail: "must be bios"}}
		return p
	}
	return nil
}

// networks checks that the hypervisor has the networks of NICs.
func (s *Service) networks(ctx context.Context, nics []wire.NIC, refuse func(field, format string, args ...any)) error {
	if len(nics) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	names, err := s.Driver.Networks(ctx)
	if err != nil {
		s.Log.WarnContext(ctx, "ask the hypervisor for its networks", "err", err)
		return unavailable()
	}
	for i, n := range nics {
		if !slices.Contains(names, n.Network) {
			refuse(fmt.Sprintf("networks[%d].network", i), "the node has no network %q; an empty list of networks makes a machine without", n.Network)
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
func (s *Service) file(field string, path **string, refuse func(field, format string, args ...any)) {
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
