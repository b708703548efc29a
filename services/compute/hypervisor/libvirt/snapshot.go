//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
	"libvirt.org/go/libvirtxml"

	"horcrux/services/compute/hypervisor"
)

// snapshotTime is how long the daemon may be silent while memory is written to a disk or read from it.
const snapshotTime = 10 * time.Minute

// Snapshot implements hypervisor.Driver. libvirt keeps it in the qcow2 files of the disks.
func (d *Driver) Snapshot(ctx context.Context, id uuid.UUID, snap hypervisor.Snapshot) error {
	if err := d.snapshot(ctx, id, snap); err != nil {
		return fmt.Errorf("take snapshot %s of domain %s: %w", snap.Name, id, err)
	}
	return nil
}

func (d *Driver) snapshot(ctx context.Context, id uuid.UUID, snap hypervisor.Snapshot) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	dom, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) { return observe(l, id) })
	switch {
	case err != nil:
		return err
	case active(dom.State) && !snap.Memory:
		return fmt.Errorf("%w: the disks of a domain that is %s, without its memory", hypervisor.ErrUnsupported, dom.State)
	case !active(dom.State) && snap.Memory:
		return fmt.Errorf("%w: the memory of a domain that is %s", hypervisor.ErrConflict, dom.State)
	}
	doc := libvirtxml.DomainSnapshot{Name: snap.Name, Description: legible(snap.Description)}
	text, err := doc.Marshal()
	if err != nil {
		return fmt.Errorf("%w: %w", hypervisor.ErrInvalid, err)
	}
	_, err = exchangeWithin(ctx, s, act, snapshotTime, func(l *golibvirt.Libvirt) (golibvirt.DomainSnapshot, error) {
		return l.DomainSnapshotCreateXML(handle(id), text, 0)
	})
	if !refused(err) {
		return err
	}
	// libvirt lists a snapshot from when it begins it, and takes it off the list when it fails. But it does one thing at a
	// time to a domain: what it refuses because the name is there has been taken to its end.
	if _, missing := d.snapshotOf(ctx, id, snap.Name); missing == nil {
		return nil
	}
	return err
}

// snapshotOf looks for a snapshot.
func (d *Driver) snapshotOf(ctx context.Context, id uuid.UUID, name string) (hypervisor.Snapshot, error) {
	return call(ctx, d, look, func(l *golibvirt.Libvirt) (hypervisor.Snapshot, error) {
		return observeSnapshot(l, golibvirt.DomainSnapshot{Name: name, Dom: handle(id)})
	})
}

func observeSnapshot(l *golibvirt.Libvirt, snap golibvirt.DomainSnapshot) (out hypervisor.Snapshot, err error) {
	text, err := l.DomainSnapshotGetXMLDesc(snap, 0)
	if err != nil {
		return out, err
	}
	var doc libvirtxml.DomainSnapshot
	if err := doc.Unmarshal(text); err != nil {
		return out, fmt.Errorf("%w: snapshot XML: %w", hypervisor.ErrInvalid, err)
	}
	out = hypervisor.Snapshot{Name: doc.Name, Description: doc.Description}
	if doc.Parent != nil {
		out.Parent = doc.Parent.Name
	}
	switch doc.State {
	case "running", "blocked":
		out.State = hypervisor.Running
	case "paused", "pmsuspended":
		out.State = hypervisor.Paused
	default:
		out.State = hypervisor.Off
	}
	out.Memory = active(out.State) && (doc.Memory == nil || doc.Memory.Snapshot != "no")
	return out, nil
}

// RestoreSnapshot implements hypervisor.Driver.
func (d *Driver) RestoreSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	if err := d.restoreSnapshot(ctx, id, name); err != nil {
		return fmt.Errorf("restore snapshot %s of domain %s: %w", name, id, err)
	}
	return nil
}

func (d *Driver) restoreSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	dom, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) { return observe(l, id) })
	if err != nil {
		return err
	}
	snap, err := d.snapshotOf(ctx, id, name)
	switch {
	case err != nil:
		return err
	case active(dom.State) && !snap.Memory:
		return fmt.Errorf("%w: it is %s, and the snapshot has no memory", hypervisor.ErrConflict, dom.State)
	}
	_, err = exchangeWithin(ctx, s, act, snapshotTime, func(l *golibvirt.Libvirt) (struct{}, error) {
		return struct{}{}, l.DomainRevertToSnapshot(golibvirt.DomainSnapshot{Name: name, Dom: handle(id)}, 0)
	})
	return err
}

// DeleteSnapshot implements hypervisor.Driver.
func (d *Driver) DeleteSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	err := d.deleteSnapshot(ctx, id, name)
	var said golibvirt.Error
	if errors.As(err, &said) && golibvirt.ErrorNumber(said.Code) == golibvirt.ErrNoDomainSnapshot {
		return nil
	}
	if err != nil {
		return fmt.Errorf("delete snapshot %s of domain %s: %w", name, id, err)
	}
	return nil
}

func (d *Driver) deleteSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	_, err = exchangeWithin(ctx, s, act, snapshotTime, func(l *golibvirt.Libvirt) (struct{}, error) {
		return struct{}{}, l.DomainSnapshotDelete(golibvirt.DomainSnapshot{Name: name, Dom: handle(id)}, 0)
	})
	return err
}

// Snapshots implements hypervisor.Driver.
func (d *Driver) Snapshots(ctx context.Context, id uuid.UUID) ([]hypervisor.Snapshot, error) {
	all, err := call(ctx, d, look, func(l *golibvirt.Libvirt) ([]hypervisor.Snapshot, error) {
		list, _, err := l.DomainListAllSnapshots(handle(id), 1, 0)
		if err != nil {
			return nil, err
		}
		var all []hypervisor.Snapshot
		for _, snap := range list {
			o, err := observeSnapshot(l, snap)
			if answers(err, hypervisor.ErrNotFound) {
				continue // deleted since it was listed
			}
			if err != nil {
				return nil, err
			}
			all = append(all, o)
		}
		return all, nil
	})
	if err != nil {
		return nil, fmt.Errorf("observe snapshots of domain %s: %w", id, err)
	}
	return all, nil
}
