package fake

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// snapshot is a domain as it was.
type snapshot struct {
	hypervisor.Snapshot
	spec, live hypervisor.Spec
	bytes      []byte // the first of each disk
}

// Write puts a byte at the start of a disk, past the drivers.
func (h *Hypervisor) Write(path string, b byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bytes[path] = b
}

// Read is the byte at the start of a disk.
func (h *Hypervisor) Read(path string) byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.bytes[path]
}

func (d *domain) snapshot(name string) int {
	return slices.IndexFunc(d.snaps, func(s snapshot) bool { return s.Name == name })
}

// Snapshot implements hypervisor.Driver.
func (d *Driver) Snapshot(ctx context.Context, id uuid.UUID, snap hypervisor.Snapshot) error {
	return d.change(ctx, "Snapshot", id, func(dom *domain, e *Effects) error {
		switch {
		case dom.active() && !snap.Memory:
			return refuse(hypervisor.ErrUnsupported, "domain %s is %s", id, dom.state)
		case !dom.active() && snap.Memory:
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		case dom.snapshot(snap.Name) >= 0:
			return nil
		case len(dom.spec.Disks) == 0:
			return refuse(hypervisor.ErrInvalid, "no disk")
		}
		s := snapshot{Snapshot: snap, spec: dom.spec, live: dom.live}
		for _, disk := range dom.spec.Disks {
			if disk.Format != "qcow2" {
				return refuse(hypervisor.ErrInvalid, "disk %s is %s", disk.Path, disk.Format)
			}
			s.bytes = append(s.bytes, d.h.bytes[disk.Path])
		}
		s.Parent, s.State = dom.at, dom.state
		dom.snaps, dom.at = append(dom.snaps, s), s.Name
		e.Snapshot++
		return nil
	})
}

// RestoreSnapshot implements hypervisor.Driver.
func (d *Driver) RestoreSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	return d.change(ctx, "RestoreSnapshot", id, func(dom *domain, e *Effects) error {
		i := dom.snapshot(name)
		switch {
		case i < 0:
			return refuse(hypervisor.ErrNotFound, "snapshot %s", name)
		case dom.active() && !dom.snaps[i].Memory:
			return refuse(hypervisor.ErrConflict, "domain %s is %s", id, dom.state)
		}
		s := dom.snaps[i]
		for n, disk := range s.spec.Disks {
			d.h.bytes[disk.Path] = s.bytes[n]
		}
		dom.spec, dom.live, dom.state, dom.at = s.spec, s.live, s.State, name
		e.Restored++
		d.h.publish(id, dom.state, "restored")
		return nil
	})
}

// DeleteSnapshot implements hypervisor.Driver.
func (d *Driver) DeleteSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	return d.change(ctx, "DeleteSnapshot", id, func(dom *domain, e *Effects) error {
		i := dom.snapshot(name)
		if i < 0 {
			return nil
		}
		parent := dom.snaps[i].Parent
		dom.snaps = slices.Delete(dom.snaps, i, i+1)
		for n := range dom.snaps {
			if dom.snaps[n].Parent == name {
				dom.snaps[n].Parent = parent
			}
		}
		if dom.at == name {
			dom.at = parent
		}
		e.SnapshotDeleted++
		return nil
	})
}

// Snapshots implements hypervisor.Driver.
func (d *Driver) Snapshots(ctx context.Context, id uuid.UUID) (all []hypervisor.Snapshot, err error) {
	err = d.do(ctx, "Snapshots", id, false, func() error {
		dom, ok := d.h.domains[id]
		if !ok {
			return refuse(hypervisor.ErrNotFound, "domain %s", id)
		}
		for _, s := range dom.snaps {
			all = append(all, s.Snapshot)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}
