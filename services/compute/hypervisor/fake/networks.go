package fake

import (
	"cmp"
	"context"
	"slices"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
)

// NetworkEffects counts what really happened to one network.
type NetworkEffects struct{ Defined, Started, Removed int }

// lan is a network of the fake.
type lan struct {
	network.Definition
	defined, active, ours bool
}

var _ network.Driver = (*Driver)(nil)

// NetworkEffects of a network so far, also after it is gone.
func (h *Hypervisor) NetworkEffects(id uuid.UUID) NetworkEffects {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lanEffects[id]
}

// AddNetwork puts a network in behind the drivers' back, without our mark. It counts no effect.
func (h *Hypervisor) AddNetwork(d network.Definition, active bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lans[d.ID] = &lan{Definition: d, defined: true, active: active}
}

// StopNetwork ends a network behind the drivers' back.
func (h *Hypervisor) StopNetwork(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n, ok := h.lans[id]; ok {
		if n.active = false; !n.defined {
			delete(h.lans, id)
		}
	}
}

// UndefineNetwork forgets a network behind the drivers' back. An active one stays until it is stopped.
func (h *Hypervisor) UndefineNetwork(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n, ok := h.lans[id]; ok {
		if n.defined = false; !n.active {
			delete(h.lans, id)
		}
	}
}

func (d *Driver) lanEffect(id uuid.UUID, count func(*NetworkEffects)) {
	e := d.h.lanEffects[id]
	count(&e)
	d.h.lanEffects[id] = e
}

// DefineNetwork implements network.Driver.
func (d *Driver) DefineNetwork(ctx context.Context, def network.Definition) error {
	h := d.h
	return d.do(ctx, "DefineNetwork", def.ID, true, func() error {
		if def.ID == uuid.Nil || def.Name == "" {
			return refuse(hypervisor.ErrInvalid, "id or name")
		}
		for id, n := range h.lans {
			if n.Name == def.Name && id != def.ID {
				return refuse(hypervisor.ErrAlreadyExists, "the name %s belongs to %s", def.Name, id)
			}
		}
		old, ok := h.lans[def.ID]
		h.lans[def.ID] = &lan{Definition: def, defined: true, active: ok && old.active, ours: true}
		if !ok || !old.defined {
			d.lanEffect(def.ID, func(e *NetworkEffects) { e.Defined++ })
		}
		return nil
	})
}

// StartNetwork implements network.Driver.
func (d *Driver) StartNetwork(ctx context.Context, id uuid.UUID) error {
	return d.do(ctx, "StartNetwork", id, true, func() error {
		n, ok := d.h.lans[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "network %s", id)
		}
		if !n.active {
			n.active = true
			d.lanEffect(id, func(e *NetworkEffects) { e.Started++ })
		}
		return nil
	})
}

// RemoveNetwork implements network.Driver.
func (d *Driver) RemoveNetwork(ctx context.Context, id uuid.UUID) error {
	return d.do(ctx, "RemoveNetwork", id, true, func() error {
		if _, ok := d.h.lans[id]; ok {
			delete(d.h.lans, id)
			d.lanEffect(id, func(e *NetworkEffects) { e.Removed++ })
		}
		return nil
	})
}

// NetworkStates implements network.Driver.
func (d *Driver) NetworkStates(ctx context.Context) (out []network.Seen, err error) {
	err = d.do(ctx, "NetworkStates", uuid.Nil, false, func() error {
		for id, n := range d.h.lans {
			out = append(out, network.Seen{ID: id, Name: n.Name, Defined: n.defined, Active: n.active})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b network.Seen) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// DescribeNetwork implements network.Driver.
func (d *Driver) DescribeNetwork(ctx context.Context, id uuid.UUID) (def network.Definition, ours bool, err error) {
	err = d.do(ctx, "DescribeNetwork", id, false, func() error {
		n, ok := d.h.lans[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "network %s", id)
		}
		def, ours = n.Definition, n.ours
		return nil
	})
	if err != nil {
		return network.Definition{}, false, err
	}
	return def, ours, nil
}

// NetworkGuests implements network.Driver.
func (d *Driver) NetworkGuests(ctx context.Context, id uuid.UUID) (names []string, err error) {
	err = d.do(ctx, "NetworkGuests", id, false, func() error {
		n, ok := d.h.lans[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "network %s", id)
		}
		for _, dom := range d.h.list() {
			nics := d.h.domains[dom.ID].spec.NICs
			on := slices.ContainsFunc(nics, func(c hypervisor.NIC) bool { return c.Network == n.Name })
			if on && d.h.domains[dom.ID].active() {
				names = append(names, dom.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return names, nil
}
