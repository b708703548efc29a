package fake

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/watch"
)

// Driver is one connection to the fake hypervisor.
type Driver struct {
	h    *Hypervisor
	life context.Context // ends with Close
	end  context.CancelFunc

	mu      sync.Mutex
	changes *watch.Hub
}

var _ hypervisor.Driver = (*Driver)(nil)

// Info implements hypervisor.Driver.
func (d *Driver) Info(ctx context.Context) (hypervisor.Info, error) {
	err := d.do(ctx, "Info", uuid.Nil, false, func() error { return nil })
	if err != nil {
		return hypervisor.Info{}, err
	}
	return d.h.info, nil
}

// Networks implements hypervisor.Driver.
func (d *Driver) Networks(ctx context.Context) (names []string, err error) {
	err = d.do(ctx, "Networks", uuid.Nil, false, func() error {
		for _, n := range d.h.lans {
			if n.active {
				names = append(names, n.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

// Define implements hypervisor.Driver.
func (d *Driver) Define(ctx context.Context, spec hypervisor.Spec) (out hypervisor.Domain, err error) {
	h := d.h
	err = d.do(ctx, "Define", spec.ID, true, func() error {
		if spec.ID == uuid.Nil || spec.Name == "" || spec.CPUs < 1 || spec.CPUs > h.info.MaxCPUs || spec.MemoryMB < 1 {
			return refuse(hypervisor.ErrInvalid, "id, name, CPUs or memory")
		}
		if holder, ok := h.names[spec.Name]; ok && holder != spec.ID {
			return refuse(hypervisor.ErrAlreadyExists, "the name %s belongs to %s", spec.Name, holder)
		}
		if old, ok := h.domains[spec.ID]; ok {
			switch {
			case !old.managed:
				return refuse(hypervisor.ErrAlreadyExists, "domain %s is not ours", spec.ID)
			case old.active():
				return refuse(hypervisor.ErrConflict, "domain %s is %s", spec.ID, old.state)
			}
			delete(h.names, old.spec.Name)
		}
		dom := &domain{spec: spec, state: hypervisor.Off, managed: true}
		h.domains[spec.ID] = dom
		h.names[spec.Name] = spec.ID
		h.effect(spec.ID).Defined++
		h.publish(spec.ID, hypervisor.Off, "defined")
		out = dom.observed()
		return nil
	})
	if err != nil {
		return hypervisor.Domain{}, err
	}
	return out, nil
}

// Undefine implements hypervisor.Driver.
func (d *Driver) Undefine(ctx context.Context, id uuid.UUID) error {
	h := d.h
	return d.do(ctx, "Undefine", id, true, func() error {
		dom, ok := h.domains[id]
		if !ok {
			return nil
		}
		if dom.active() {
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		h.effect(id).Undefined++
		h.remove(id)
		return nil
	})
}

// Start implements hypervisor.Driver.
func (d *Driver) Start(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Start", id, func(dom *domain, e *Effects) error {
		switch {
		case dom.state == hypervisor.Running:
			return nil
		case dom.active():
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		dom.state, dom.live = hypervisor.Running, dom.spec
		e.Started++
		d.h.publish(id, dom.state, "started")
		return nil
	})
}

// Destroy implements hypervisor.Driver.
func (d *Driver) Destroy(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Destroy", id, func(dom *domain, e *Effects) error {
		if !dom.active() {
			return nil
		}
		dom.state = hypervisor.Off
		e.Destroyed++
		d.h.publish(id, dom.state, "destroyed")
		return nil
	})
}

// Shutdown implements hypervisor.Driver. The guests of a fake obey at once.
func (d *Driver) Shutdown(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Shutdown", id, func(dom *domain, e *Effects) error {
		if dom.state != hypervisor.Running {
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		e.Shutdown++
		if d.h.disobey {
			return nil
		}
		dom.state = hypervisor.Off
		d.h.publish(id, dom.state, "shutdown")
		return nil
	})
}

// Pause implements hypervisor.Driver.
func (d *Driver) Pause(ctx context.Context, id uuid.UUID) error {
	return d.hold(ctx, "Pause", id, hypervisor.Paused, "paused", func(e *Effects) { e.Paused++ })
}

// Resume implements hypervisor.Driver.
func (d *Driver) Resume(ctx context.Context, id uuid.UUID) error {
	return d.hold(ctx, "Resume", id, hypervisor.Running, "resumed", func(e *Effects) { e.Resumed++ })
}

// hold holds an active domain's CPUs, or lets them go.
func (d *Driver) hold(ctx context.Context, method string, id uuid.UUID, to hypervisor.State, cause string, count func(*Effects)) error {
	return d.change(ctx, method, id, func(dom *domain, e *Effects) error {
		switch {
		case !dom.active():
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		case dom.state != to:
			dom.state = to
			count(e)
			d.h.publish(id, to, cause)
		}
		return nil
	})
}

// Reset implements hypervisor.Driver.
func (d *Driver) Reset(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Reset", id, func(dom *domain, e *Effects) error {
		if !dom.active() {
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		e.Reset++
		return nil
	})
}

// Reboot implements hypervisor.Driver.
func (d *Driver) Reboot(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Reboot", id, func(dom *domain, e *Effects) error {
		if !dom.active() {
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		e.Reboot++
		return nil
	})
}

// Configure implements hypervisor.Driver.
func (d *Driver) Configure(ctx context.Context, spec hypervisor.Spec) error {
	return d.change(ctx, "Configure", spec.ID, func(dom *domain, e *Effects) error {
		if spec.CPUs < 1 || spec.CPUs > d.h.info.MaxCPUs || spec.MemoryMB < 1 {
			return refuse(hypervisor.ErrInvalid, "CPUs or memory")
		}
		dom.spec = kept(spec, dom.spec)
		e.Configured++
		return nil
	})
}

// Adjust implements hypervisor.Driver.
func (d *Driver) Adjust(ctx context.Context, spec hypervisor.Spec) error {
	return d.change(ctx, "Adjust", spec.ID, func(dom *domain, e *Effects) error {
		if !dom.active() {
			return nil
		}
		spec.MemoryMB = cmp.Or(spec.MemoryMB, dom.live.MemoryMB)
		dom.live = kept(spec, dom.live)
		e.Adjusted++
		return nil
	})
}

// kept is a spec with the devices that were there and are not to go.
func kept(spec, was hypervisor.Spec) hypervisor.Spec {
	gone := spec.Gone
	spec.Gone, spec.Disks, spec.NICs = hypervisor.Devices{}, slices.Clone(spec.Disks), slices.Clone(spec.NICs)
	for _, o := range was.Disks {
		same := func(d hypervisor.Disk) bool { return d.Index == o.Index && d.Target == o.Target }
		if !slices.ContainsFunc(spec.Disks, same) && !slices.ContainsFunc(gone.Disks, same) {
			spec.Disks = append(spec.Disks, o)
		}
	}
	for _, o := range was.NICs {
		same := func(n hypervisor.NIC) bool { return n.MAC == o.MAC }
		if !slices.ContainsFunc(spec.NICs, same) && !slices.ContainsFunc(gone.NICs, same) {
			spec.NICs = append(spec.NICs, o)
		}
	}
	return spec
}

// Adopt implements hypervisor.Driver.
func (d *Driver) Adopt(ctx context.Context, id uuid.UUID) error {
	return d.change(ctx, "Adopt", id, func(dom *domain, e *Effects) error {
		if !dom.managed {
			dom.managed = true
			e.Adopted++
		}
		return nil
	})
}

// Describe implements hypervisor.Driver.
func (d *Driver) Describe(ctx context.Context, id uuid.UUID, seen uint64) (out hypervisor.Description, err error) {
	err = d.do(ctx, "Describe", id, false, func() error {
		dom, ok := d.h.domains[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "domain %s", id)
		}
		out = hypervisor.Description{Domain: dom.observed(), Version: dom.version()}
		if out.Version == seen {
			return nil
		}
		out.Next = dom.spec
		if dom.active() {
			live := dom.live
			out.Running = &live
		}
		return nil
	})
	return out, err
}

// SetAutostart implements hypervisor.Driver.
func (d *Driver) SetAutostart(ctx context.Context, id uuid.UUID, on bool) error {
	return d.change(ctx, "SetAutostart", id, func(dom *domain, e *Effects) error {
		dom.spec.Autostart = on
		e.Autostart++
		return nil
	})
}

// SetDescription implements hypervisor.Driver.
func (d *Driver) SetDescription(ctx context.Context, id uuid.UUID, text string) error {
	return d.change(ctx, "SetDescription", id, func(dom *domain, e *Effects) error {
		dom.spec.Description = text
		e.Description++
		return nil
	})
}

func (d *Driver) change(ctx context.Context, method string, id uuid.UUID, f func(*domain, *Effects) error) error {
	return d.do(ctx, method, id, true, func() error {
		dom, ok := d.h.domains[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "domain %s", id)
		}
		return f(dom, d.h.effect(id))
	})
}

// Domain implements hypervisor.Driver.
func (d *Driver) Domain(ctx context.Context, id uuid.UUID) (out hypervisor.Domain, err error) {
	err = d.do(ctx, "Domain", id, false, func() error {
		dom, ok := d.h.domains[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "domain %s", id)
		}
		out = dom.observed()
		return nil
	})
	if err != nil {
		return hypervisor.Domain{}, err
	}
	return out, nil
}

// Domains implements hypervisor.Driver.
func (d *Driver) Domains(ctx context.Context) (out []hypervisor.Domain, err error) {
	err = d.do(ctx, "Domains", uuid.Nil, false, func() error {
		out = d.h.list()
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Watch implements hypervisor.Driver.
func (d *Driver) Watch(ctx context.Context) (out <-chan hypervisor.Change, err error) {
	err = d.do(ctx, "Watch", uuid.Nil, false, func() error {
		out = d.hub().Watch(ctx)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Close implements hypervisor.Driver.
func (d *Driver) Close() error {
	d.end()
	d.h.mu.Lock()
	delete(d.h.drivers, d)
	d.h.mu.Unlock()
	d.hub().Close()
	return nil
}

func (d *Driver) hub() *watch.Hub {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.changes
}

// renewHub returns the hub so far, for the caller to close, and puts a new one in its place.
func (d *Driver) renewHub() *watch.Hub {
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.changes
	d.changes = watch.New()
	return old
}
