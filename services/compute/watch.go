package compute

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	wire "horcrux/pkg/events/vm"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

const (
	watchAgain  = time.Second // the pause before a broken watch is taken up again
	resyncAgain = 2 * time.Second
)

// gone stands for the state of a machine that the hypervisor does not know.
const gone wire.State = ""

// watcher tells the decider what it sees of the hypervisor.
type watcher struct {
	*Service
	inspector inspector
	// seen is what was last seen of each machine and taken in, so that a look at all of them asks the store only for
	// those that changed.
	seen map[uuid.UUID]wire.State
	// known are the machines that there were at the last look at all.
	known map[uuid.UUID]bool
}

// watch goes on for as long as ctx lasts.
func (s *Service) watch(ctx context.Context) {
	w := &watcher{Service: s, seen: map[uuid.UUID]wire.State{}}
	w.inspector = inspector{watcher: w, seen: map[uuid.UUID]uint64{}}
	for ctx.Err() == nil {
		err := w.once(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if s.down.Load() == nil {
				s.Log.Warn("the hypervisor does not answer", "err", err)
			}
			down := error(unavailable())
			s.down.Store(&down)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchAgain):
		}
	}
}

// once looks at every machine, then takes in each change and looks at all again now and then, until the connection
// breaks.
func (w *watcher) once(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := w.info(ctx); err != nil {
		return err
	}
	changes, err := w.Driver.Watch(ctx)
	if err != nil {
		return err
	}
	probe := time.NewTicker(infoTime)
	defer probe.Stop()
	resync := time.NewTimer(0)
	defer resync.Stop()
	inspect := time.NewTimer(inspectRound)
	defer inspect.Stop()
	clear(w.inspector.seen) // what changed while nobody watched
	for {
		select {
		case c, ok := <-changes:
			if !ok {
				return hypervisor.ErrUnavailable
			}
			if !w.observe(ctx, c.ID, state(c.State), c.Cause) {
				resync.Reset(resyncAgain)
			}
			if c.Cause == "defined" || c.Cause == "undefined" || state(c.State) == wire.StateStopped { // some are forgotten then
				w.inspector.soon(c.ID)
				inspect.Reset(w.inspector.pause(0))
			}
		case <-inspect.C:
			begun := time.Now()
			w.inspector.next(ctx)
			inspect.Reset(w.inspector.pause(time.Since(begun)))
		case <-resync.C:
			taken, err := w.resync(ctx)
			if err != nil {
				return err
			}
			next := w.Resync
			if !taken {
				next = resyncAgain
			}
			resync.Reset(next)
		case <-probe.C:
			if _, err := w.info(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func state(s hypervisor.State) wire.State {
	if s == "" {
		return gone
	}
	return observed(s)
}

// resync compares all that the hypervisor has with what was seen of it before. taken says that all of it was taken in.
func (w *watcher) resync(ctx context.Context) (taken bool, err error) {
	begin := w.Clock()
	defer func() {
		if err == nil {
			w.resyncs.Observe(w.Clock().Sub(begin).Seconds())
		}
	}()
	if _, err := w.info(ctx); err != nil { // one that hangs is noticed sooner than a long list may take
		return false, err
	}
	known, unknown := w.machinesKnown(ctx) // first, so that what is listed is known
	listing, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	domains, err := w.Driver.Domains(listing)
	if err != nil {
		return false, err
	}
	if w.down.Swap(nil) != nil {
		w.Log.Info("the hypervisor answers")
	}
	if unknown != nil {
		w.Log.Warn("look at all machines; it is tried again", "err", unknown)
		return false, nil
	}
	taken = true
	there := make(map[uuid.UUID]bool, len(domains))
	for _, d := range domains {
		there[d.ID] = true
		if known[d.ID] {
			if _, looked := w.inspector.seen[d.ID]; !looked {
				w.inspector.soon(d.ID)
			}
			taken = w.observe(ctx, d.ID, observed(d.State), cmp.Or(d.Reason, "found")) && taken
		}
	}
	w.known = known
	w.inspector.some()
	for id := range known {
		if !there[id] {
			taken = w.observe(ctx, id, gone, "not found") && taken
		}
	}
	return taken, nil
}

// observe says whether what was seen is taken in. What is seen while something is under way is not, since the effect
// looks for itself: it is looked at again. What would be news may be old by now, of before something that is recorded
// meanwhile: what counts is a look at a machine that has not moved since before it.
func (w *watcher) observe(ctx context.Context, id uuid.UUID, state wire.State, cause string) bool {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	taken, moved := w.observeAt(ctx, id, engine.Never, state, cause)
	if !moved {
		return taken
	}
	version, err := engine.Version(ctx, w.engine, w.machines, id)
	if err != nil {
		w.Log.Warn("load a virtual machine; it is looked at again", "vm", id, "err", err)
		return false
	}
	now, why := gone, "not found"
	d, err := w.Driver.Domain(ctx, id)
	switch {
	case err == nil:
		now, why = observed(d.State), cmp.Or(d.Reason, "found")
	case !errors.Is(err, hypervisor.ErrNotFound):
		return false // what is wrong with the hypervisor the watch finds out
	}
	if now == state {
		why = cause
	}
	taken, moved = w.observeAt(ctx, id, version, now, why)
	return taken && !moved
}

// observeAt takes in what was seen of a machine at a version. moved says that it would be news to a machine that has
// another version.
func (w *watcher) observeAt(ctx context.Context, id uuid.UUID, version int64, state wire.State, cause string) (taken, moved bool) {
	w.inspector.state(id, state)
	if last, ok := w.seen[id]; ok && last == state {
		return true, false
	}
	m, err := engine.ObserveAt(ctx, w.engine, w.machines, id, version, cause,
		vm.Observed{Node: w.Node, State: state, Gone: state == gone, Cause: cause, Repair: w.repairIntent(), At: w.Clock()})
	if err != nil || m.Intent != nil || m.Process != uuid.Nil {
		delete(w.seen, id)
	}
	switch {
	case errors.Is(err, engine.ErrMoved):
		return false, true
	case err != nil:
		w.Log.Error("record what was observed; it is looked at again", "vm", id, "state", state, "err", err)
		return false, false
	case m.Intent != nil || m.Process != uuid.Nil:
		return false, false
	}
	w.seen[id] = state
	return true, false
}
