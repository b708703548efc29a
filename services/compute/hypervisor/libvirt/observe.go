//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// handle names a domain to the daemon, which looks at the UUID alone.
func handle(id uuid.UUID) golibvirt.Domain {
	return golibvirt.Domain{UUID: golibvirt.UUID(id), ID: -1}
}

// Domain implements hypervisor.Driver.
func (d *Driver) Domain(ctx context.Context, id uuid.UUID) (hypervisor.Domain, error) {
	s, err := d.session(ctx)
	if err != nil {
		return hypervisor.Domain{}, fmt.Errorf("observe domain %s: %w", id, err)
	}
	dom, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) {
		dom, err := observe(l, id)
		if err != nil {
			return dom, err
		}
		on, err := l.DomainGetAutostart(handle(id))
		if err != nil {
			return dom, err
		}
		dom.Autostart = on != 0
		dom.Managed, err = s.marks.of(l, id)
		return dom, err
	})
	if err != nil {
		return hypervisor.Domain{}, fmt.Errorf("observe domain %s: %w", id, err)
	}
	return dom, nil
}

// errGone is libvirt's answer for a domain that a list has left out.
var errGone = golibvirt.Error{Code: uint32(golibvirt.ErrNoDomain), Message: "no such domain"}

// observe asks for the name and state of one domain.
func observe(l *golibvirt.Libvirt, id uuid.UUID) (hypervisor.Domain, error) {
	records, err := l.ConnectGetAllDomainStats([]golibvirt.Domain{handle(id)}, uint32(golibvirt.DomainStatsState), 0)
	if err != nil {
		return hypervisor.Domain{}, err
	}
	if len(records) == 0 {
		return hypervisor.Domain{}, errGone
	}
	return domainOf(records[0])
}

// Domains implements hypervisor.Driver. It costs two calls however many domains there are, and on a new connection
// one more for each domain whose mark is not known yet.
func (d *Driver) Domains(ctx context.Context) ([]hypervisor.Domain, error) {
	s, err := d.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("observe domains: %w", err)
	}
	all, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) ([]hypervisor.Domain, error) {
		records, err := l.ConnectGetAllDomainStats(nil, uint32(golibvirt.DomainStatsState), 0)
		if err != nil {
			return nil, err
		}
		starting, _, err := l.ConnectListAllDomains(1, golibvirt.ConnectListDomainsAutostart)
		if err != nil {
			return nil, err
		}
		autostart := make(map[golibvirt.UUID]bool, len(starting))
		for _, dom := range starting {
			autostart[dom.UUID] = true
		}
		all := make([]hypervisor.Domain, 0, len(records))
		for _, r := range records {
			dom, err := domainOf(r)
			if err != nil {
				return nil, err
			}
			dom.Autostart = autostart[r.Dom.UUID]
			dom.Managed, err = s.marks.of(l, dom.ID)
			if answers(err, hypervisor.ErrNotFound) {
				continue // undefined since it was listed
			}
			if err != nil {
				return nil, err
			}
			all = append(all, dom)
		}
		return all, nil
	})
	if err != nil {
		return nil, fmt.Errorf("observe domains: %w", err)
	}
	return all, nil
}

func domainOf(r golibvirt.DomainStatsRecord) (hypervisor.Domain, error) {
	value := map[string]int32{}
	for _, p := range r.Params {
		if n, ok := p.Value.I.(int32); ok {
			value[p.Field] = n
		}
	}
	state, ok := value[golibvirt.DomainStatsStateState]
	if !ok {
		return hypervisor.Domain{}, errors.New("a domain without a state")
	}
	return hypervisor.Domain{
		ID: uuid.UUID(r.Dom.UUID), Name: r.Dom.Name, NativeID: r.Dom.Name,
		State:  stateOf(golibvirt.DomainState(state), value[golibvirt.DomainStatsStateReason]),
		Reason: reasonOf(golibvirt.DomainState(state), value[golibvirt.DomainStatsStateReason]),
	}, nil
}

// reasonOf says why a domain is off, in the words of changes.
func reasonOf(state golibvirt.DomainState, reason int32) string {
	if state != golibvirt.DomainShutoff {
		return ""
	}
	switch golibvirt.DomainShutoffReason(reason) {
	case golibvirt.DomainShutoffShutdown:
		return "shutdown"
	case golibvirt.DomainShutoffDestroyed:
		return "destroyed"
	case golibvirt.DomainShutoffCrashed:
		return "crashed"
	}
	return ""
}

// stateOf translates libvirt's state. A domain that is still being started counts as off: the start may fail.
func stateOf(state golibvirt.DomainState, reason int32) hypervisor.State {
	switch state {
	case golibvirt.DomainRunning, golibvirt.DomainBlocked, golibvirt.DomainShutdown: // the last: on its way down
		return hypervisor.Running
	case golibvirt.DomainPaused:
		if golibvirt.DomainPausedReason(reason) == golibvirt.DomainPausedStartingUp {
			return hypervisor.Off
		}
		return hypervisor.Paused
	case golibvirt.DomainPmsuspended:
		return hypervisor.Paused
	case golibvirt.DomainCrashed:
		return hypervisor.Crashed
	case golibvirt.DomainShutoff:
		if golibvirt.DomainShutoffReason(reason) == golibvirt.DomainShutoffCrashed {
			return hypervisor.Crashed
		}
	}
	return hypervisor.Off
}

// marks remembers which domains carry ours, which no list tells. An event of a definition or a stop makes it forget, so what
// it holds is as true as the events are fast.
type marks struct {
	mu    sync.Mutex
	ours  map[uuid.UUID]bool
	epoch uint64 // grows with every forget: what was read before one must not be remembered after it
}

func (m *marks) of(l *golibvirt.Libvirt, id uuid.UUID) (bool, error) {
	m.mu.Lock()
	ours, known := m.ours[id]
	epoch := m.epoch
	m.mu.Unlock()
	if known {
		return ours, nil
	}
	_, err := l.DomainGetMetadata(handle(id), int32(golibvirt.DomainMetadataElement), golibvirt.OptString{namespace}, 0)
	var said golibvirt.Error
	switch {
	case err == nil:
		ours = true
	case errors.As(err, &said) && golibvirt.ErrorNumber(said.Code) == golibvirt.ErrNoDomainMetadata:
		ours = false
	default:
		return false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.epoch == epoch {
		if m.ours == nil {
			m.ours = map[uuid.UUID]bool{}
		}
		m.ours[id] = ours
	}
	return ours, nil
}

func (m *marks) forget(id uuid.UUID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	delete(m.ours, id)
}
