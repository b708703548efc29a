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

// Configure implements hypervisor.Driver.
func (d *Driver) Configure(ctx context.Context, spec hypervisor.Spec) error {
	if err := d.configure(ctx, spec); err != nil {
		return fmt.Errorf("configure domain %s: %w", spec.ID, err)
	}
	return nil
}

func (d *Driver) configure(ctx context.Context, spec hypervisor.Spec) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	old, err := domainXML(ctx, s, spec.ID, golibvirt.DomainXMLInactive|golibvirt.DomainXMLSecure)
	if err != nil {
		return err
	}
	next := old
	if spec.Adopted {
		amend(next, spec)
	} else {
		made, err := document(spec, s.kind, d.opts.ConsoleDir)
		if err != nil {
			return err
		}
		known, err := domainXML(ctx, s, spec.ID, 0) // of what runs, if anything does
		if err != nil {
			return err
		}
		next = keep(made, old, known, spec.Gone)
	}
	text, err := marshal(next)
	if err != nil {
		return err
	}
	return d.do(ctx, func(l *golibvirt.Libvirt) error {
		_, err := l.DomainDefineXML(text)
		return err
	})
}

// domainXML reads a domain's document.
func domainXML(ctx context.Context, s *session, id uuid.UUID, flags golibvirt.DomainXMLFlags) (*libvirtxml.Domain, error) {
	text, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (string, error) { return l.DomainGetXMLDesc(handle(id), flags) })
	if err != nil {
		return nil, err
	}
	return parseDomain(text)
}

// parseDomain reads what libvirt says of a domain. What we go by is there afterwards, if empty.
func parseDomain(text string) (*libvirtxml.Domain, error) {
	d := &libvirtxml.Domain{}
	if err := d.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("%w: domain XML: %w", hypervisor.ErrInvalid, err)
	}
	if d.Devices == nil {
		d.Devices = &libvirtxml.DomainDeviceList{}
	}
	return d, nil
}

// Adjust implements hypervisor.Driver.
func (d *Driver) Adjust(ctx context.Context, spec hypervisor.Spec) error {
	if err := d.adjust(ctx, spec); err != nil {
		return fmt.Errorf("adjust domain %s: %w", spec.ID, err)
	}
	return nil
}

func (d *Driver) adjust(ctx context.Context, spec hypervisor.Spec) error {
	s, err := d.session(ctx)
	if err != nil {
		return err
	}
	dom, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) { return observe(l, spec.ID) })
	if err != nil || !active(dom.State) {
		return err
	}
	a := &adjustment{Driver: d, s: s, ctx: ctx, spec: spec}
	if a.now, err = domainXML(ctx, s, spec.ID, golibvirt.DomainXMLSecure); err != nil {
		return err
	}
	for _, step := range []func() error{a.cpus, a.memory, a.disks, a.nics, a.screen} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// adjustment of what runs to a spec.
type adjustment struct {
	*Driver
	s    *session
	ctx  context.Context
	spec hypervisor.Spec
	now  *libvirtxml.Domain
}

func (a *adjustment) do(f func(*golibvirt.Libvirt, golibvirt.Domain) error) error {
	_, err := exchange(a.ctx, a.s, act, func(l *golibvirt.Libvirt) (struct{}, error) { return struct{}{}, f(l, handle(a.spec.ID)) })
	return err
}

func (a *adjustment) cpus() error {
	v := a.now.VCPU
	if v == nil || a.spec.CPUs > int(v.Value) || a.spec.CPUs <= int(v.Current) || v.Current == 0 {
		return nil
	}
	return a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return l.DomainSetVcpusFlags(dom, uint32(a.spec.CPUs), uint32(golibvirt.DomainVCPULive))
	})
}

// memory asks the balloon. What the guest gives back it gives back when it can.
func (a *adjustment) memory() error {
	m, c := a.now.Memory, a.now.CurrentMemory
	if a.spec.MemoryMB == 0 || m == nil || c == nil || m.Unit != "KiB" || c.Unit != "KiB" {
		return nil
	}
	wanted := uint64(a.spec.MemoryMB) << 10
	if wanted > uint64(m.Value) || wanted == uint64(c.Value) {
		return nil
	}
	return a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return l.DomainSetMemoryFlags(dom, wanted, uint32(golibvirt.DomainMemLive))
	})
}

func (a *adjustment) screen() error {
	if len(a.now.Devices.Graphics) != 1 || a.now.Devices.Graphics[0].VNC == nil || !a.spec.VNC {
		return nil
	}
	g := a.now.Devices.Graphics[0]
	if g.VNC.Passwd == a.spec.VNCPassword || g.VNC.Passwd == "" || a.spec.VNCPassword == "" {
		return nil // a screen that began without a password cannot be given one, nor be opened to all
	}
	g.VNC.Passwd = a.spec.VNCPassword
	return a.update(&g)
}

func (a *adjustment) update(device marshaller) error {
	text, err := deviceText(device)
	if err != nil {
		return err
	}
	return a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return l.DomainUpdateDeviceFlags(dom, text, golibvirt.DomainDeviceModifyLive)
	})
}

func (a *adjustment) attach(device marshaller) error {
	text, err := deviceText(device)
	if err != nil {
		return err
	}
	return a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
		return ofDomain(l.DomainAttachDeviceFlags(dom, text, uint32(golibvirt.DomainDeviceModifyLive)))
	})
}

const (
	releaseTime = 20 * time.Second       // for a guest to let go of a device
	releaseAsk  = 5 * time.Second        // one that still boots does not hear it
	releaseLook = 100 * time.Millisecond // libvirt tells in an event what the document tells too
)

// detach asks the guest to let go of a device, again and again, until it has.
func (a *adjustment) detach(device marshaller, there func(*libvirtxml.Domain) bool) error {
	text, err := deviceText(device)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(a.ctx, releaseTime)
	defer cancel()
	var asked time.Time
	for {
		if time.Since(asked) >= releaseAsk {
			asked = time.Now()
			err := a.do(func(l *golibvirt.Libvirt, dom golibvirt.Domain) error {
				return l.DomainDetachDeviceFlags(dom, text, uint32(golibvirt.DomainDeviceModifyLive))
			})
			// Being asked already, and having let go meanwhile, are failures to libvirt.
			if err != nil && !refused(err) && !errors.Is(err, hypervisor.ErrBusy) {
				return err
			}
		}
		now, err := domainXML(a.ctx, a.s, a.spec.ID, 0)
		if err != nil || !there(now) {
			return err
		}
		select {
		case <-ctx.Done():
			if a.ctx.Err() != nil {
				return cut(a.ctx, act)
			}
			return fmt.Errorf("%w: it does not let go of %s", hypervisor.ErrRefused, text)
		case <-time.After(releaseLook):
		}
	}
}
