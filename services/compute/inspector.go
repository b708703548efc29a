package compute

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	wire "horcrux/pkg/events/vm"
	"horcrux/services/compute/hypervisor"
)

// inspector looks at the configurations of machines, one after the other: of those that run again and again, of the others
// when an event says that they may have changed, and some at each resync, since no event tells of a change to a
// configuration but of a new definition.
type inspector struct {
	*watcher
	due     turns // to be looked at soon
	running turns // again and again
	resting turns // now and then
	odd     bool
	seen    map[uuid.UUID]uint64
}

const (
	inspectRound = 1500 * time.Millisecond // each machine that runs is looked at once in it,
	inspectLeast = 10 * time.Millisecond   // unless there are more than can be in that time at this pace
	inspectSome  = 50                      // of those that do not run, at each resync
)

// pause is how long to wait before the next look, the last having taken a while.
func (i *inspector) pause(took time.Duration) time.Duration {
	if i.due.len() > 0 {
		return inspectLeast
	}
	return max(inspectLeast, inspectRound/time.Duration(max(1, i.running.len()))-took)
}

// soon puts a machine at the end of those that are to be looked at.
func (i *inspector) soon(id uuid.UUID) { i.due.keep(id, true) }

// some of those that do not run are to be looked at soon.
func (i *inspector) some() {
	for range min(inspectSome, i.resting.len()) {
		i.soon(i.resting.turn())
	}
}

// state takes note of whether a machine runs.
func (i *inspector) state(id uuid.UUID, s wire.State) {
	i.running.keep(id, s == wire.StateRunning || s == wire.StatePaused)
	i.resting.keep(id, s == wire.StateStopped)
	if s == gone {
		delete(i.seen, id)
	}
}

// next looks at one machine.
func (i *inspector) next(ctx context.Context) {
	var id uuid.UUID
	i.odd = !i.odd
	switch {
	case i.due.len() > 0 && (i.odd || i.running.len() == 0): // by turns: neither waits for the other
		id = i.due.take()
	case i.running.len() > 0:
		id = i.running.turn()
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	d, err := i.Driver.Describe(ctx, id, i.seen[id])
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		i.observe(ctx, id, gone, "not found")
		return
	case err != nil || d.Version == i.seen[id]:
		return // what is wrong with the hypervisor the watch finds out
	case !d.Managed && !i.known[id]:
		i.state(id, gone) // others made it
		return
	}
	// What differs may be what a command is changing: what counts is a look at a machine that has not moved since before it.
	version, err := engine.Version(ctx, i.engine, i.machines, id)
	if err != nil {
		i.Log.Warn("load a virtual machine; it is looked at again", "vm", id, "err", err)
		return
	}
	if d, err = i.Driver.Describe(ctx, id, 0); err != nil {
		return
	}
	seen := i.inspection(d, "reconfigured")
	m, err := engine.ObserveAt(ctx, i.engine, i.machines, id, version, seen.Reason(), seen)
	if errors.Is(err, engine.ErrMoved) {
		return
	}
	if err != nil {
		i.Log.Error("record a configuration; it is looked at again", "vm", id, "err", err)
		return
	}
	switch {
	case !m.Exists || m.Ended || m.Node != i.Node:
		i.state(id, gone) // not ours to look at, mark or no mark
	case m.Intent != nil || m.Process != uuid.Nil:
		delete(i.seen, id) // its effect looks for itself; then we do
	case !d.Managed && m.Defined && !d.Transient: // what others defined in its place has our mark no more
		if err := i.Driver.Adopt(ctx, id); err != nil {
			i.Log.Warn("mark a guest; it is tried again", "vm", id, "err", err)
		}
	default:
		i.seen[id] = d.Version
	}
}

// turns are machines that take turns, each of them there once.
type turns struct {
	order []uuid.UUID
	there map[uuid.UUID]bool
}

func (t *turns) len() int { return len(t.order) }

// keep sees to it that a machine is there, at the end if it comes, or that it is not.
func (t *turns) keep(id uuid.UUID, in bool) {
	switch {
	case in == t.there[id]:
	case in:
		if t.there == nil {
			t.there = map[uuid.UUID]bool{}
		}
		t.there[id] = true
		t.order = append(t.order, id)
	default:
		delete(t.there, id)
		t.order = slices.DeleteFunc(t.order, func(other uuid.UUID) bool { return other == id })
	}
}

// turn is the machine whose turn it is. It goes to the end.
func (t *turns) turn() uuid.UUID {
	id := t.order[0]
	t.order = append(t.order[1:], id)
	return id
}

// take is the machine whose turn it is. It leaves.
func (t *turns) take() uuid.UUID {
	id := t.order[0]
	t.order = t.order[1:]
	delete(t.there, id)
	return id
}
