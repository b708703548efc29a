//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// Watch implements hypervisor.Driver.
func (d *Driver) Watch(ctx context.Context) (<-chan hypervisor.Change, error) {
	s, err := d.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("watch: %w", err)
	}
	return s.hub.Watch(ctx), nil
}

// relay hands events on until the connection ends. The protocol library queues without bound, so this never waits for
// a watcher; it waits for the daemon where an event does not tell the state.
func (s *session) relay(events <-chan golibvirt.DomainEventLifecycleMsg) {
	for e := range events {
		id := uuid.UUID(e.Dom.UUID)
		kind := golibvirt.DomainEventType(e.Event)
		s.glances.forget(id)
		switch kind {
		case golibvirt.DomainEventDefined, golibvirt.DomainEventUndefined, golibvirt.DomainEventStopped: // a stop puts the next definition in force
			s.marks.forget(id)
		}
		c, tells, known := changeOf(kind, e.Detail)
		if !known {
			continue
		}
		c.ID, c.At = id, time.Now()
		if !tells && !s.settle(&c) {
			s.drop() // whoever watches begins again with a look at everything
			continue
		}
		s.hub.Publish(c)
	}
}

// settle asks for the state that an event leaves open, and says whether the daemon answered.
func (s *session) settle(c *hypervisor.Change) bool {
	dom, err := exchange(s.d.life, s, look, func(l *golibvirt.Libvirt) (hypervisor.Domain, error) {
		return observe(l, c.ID)
	})
	switch {
	case err == nil:
		c.State = dom.State
	case errors.Is(err, hypervisor.ErrNotFound):
		c.State = ""
	default:
		return false
	}
	if c.State == hypervisor.Crashed {
		c.Cause = "crashed"
	}
	return true
}

// changeOf reads an event. tells says that the event alone tells the state; it does not when the domain may be
// running or gone as well, or when a failed start and a QEMU that died look the same.
func changeOf(kind golibvirt.DomainEventType, detail int32) (c hypervisor.Change, tells, known bool) {
	change := func(state hypervisor.State, cause string) (hypervisor.Change, bool, bool) {
		return hypervisor.Change{State: state, Cause: cause}, true, true
	}
	switch kind {
	case golibvirt.DomainEventDefined:
		if golibvirt.DomainEventDefinedDetailType(detail) == golibvirt.DomainEventDefinedAdded {
			return change(hypervisor.Off, "defined")
		}
		return hypervisor.Change{Cause: "defined"}, false, true
	case golibvirt.DomainEventUndefined:
		return hypervisor.Change{Cause: "undefined"}, false, true
	case golibvirt.DomainEventStarted:
		return change(hypervisor.Running, "started")
	case golibvirt.DomainEventResumed:
		return change(hypervisor.Running, "resumed")
	case golibvirt.DomainEventSuspended, golibvirt.DomainEventPmsuspended:
		return change(hypervisor.Paused, "paused")
	case golibvirt.DomainEventCrashed:
		return change(hypervisor.Crashed, "crashed")
	case golibvirt.DomainEventStopped:
		switch golibvirt.DomainEventStoppedDetailType(detail) {
		case golibvirt.DomainEventStoppedShutdown:
			return change(hypervisor.Off, "shutdown")
		case golibvirt.DomainEventStoppedDestroyed:
			return change(hypervisor.Off, "destroyed")
		case golibvirt.DomainEventStoppedMigrated:
			return change(hypervisor.Off, "migrated")
		case golibvirt.DomainEventStoppedSaved:
			return change(hypervisor.Off, "saved")
		}
		return hypervisor.Change{Cause: "failed"}, false, true
	}
	return hypervisor.Change{}, false, false // on its way down: the stop will tell
}
