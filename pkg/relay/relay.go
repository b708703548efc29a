// Package relay carries what the event store holds to NATS: events to HORCRUX_EVT, each once and in order, and commands
// that were recorded and not decided to HORCRUX_CMD, again and again. One relay works at a time; the others stand by.
package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// Leader makes one of many processes the one that acts. The Postgres store is one.
type Leader interface {
	// Lead waits until this process leads under a name. The context that it returns ends with ctx, with release, or
	// when the leadership is lost. release gives the leadership up and has to be called.
	Lead(ctx context.Context, name string) (lead context.Context, release func(), err error)
}

// Store is what the relay needs of an eventstore.Store.
type Store interface {
	Read(ctx context.Context, after events.Position, opts eventstore.ReadOptions) (eventstore.Page, error)
	End(ctx context.Context) (events.Position, error)
	Due(ctx context.Context, at time.Time, limit int) ([]eventstore.Undecided, error)
	Published(ctx context.Context, command uuid.UUID, next time.Time) error
	Forget(ctx context.Context, before time.Time, limit int) (int, error)
}

// Bus is what the relay needs of a *bus.Bus.
type Bus interface {
	Tail(ctx context.Context) (bus.Tail, error)
	PublishEvents(ctx context.Context, after bus.Tail, evs []events.Event, domain func(kind string) string) (bus.Tail, error)
	Publish(ctx context.Context, cmd events.Command, attempt int) error
	Nudges() (nudges <-chan struct{}, stop func())
}

// Options of a relay. Durations that are 0 have the default named.
type Options struct {
	Leader Leader
	Store  Store
	Bus    Bus
	// Domain names the service of a kind of stream: "vm" → "compute". It answers for every kind in the store.
	Domain func(kind string) string
	// Expire rejects a command whose deadline has passed, so that it is due no more. It is called again after a failure.
	Expire func(context.Context, events.Command) error
	Log    *slog.Logger     // nil: slog.Default
	Clock  func() time.Time // nil: time.Now

	Gather time.Duration // how long to wait after a nudge for more: 10 ms
	Poll   time.Duration // how often the log is read when nobody nudges: 250 ms
	Sweep  time.Duration // how often undecided commands are looked for: 1 s
	Check  time.Duration // how often the event stream is looked at while nothing happens: 5 s
	Forget time.Duration // how often old outcomes of commands are dropped: 1 h
	Retry  time.Duration // the pause after a failure: 1 s
}

// leadership is the name under which relays agree on one.
const leadership = "relay"

// callTime bounds one call of the store or the bus, in which up to bus.MaxEvents events are read or published.
const callTime = 10 * time.Second

// Status says how the relay does. The errors are nil while all is well.
type Status struct {
	Leading  bool
	Position events.Position // of the last event on the bus, known to a leader
	Lead     error           // why it could not lead or does no longer, until it tries again
	Events   error           // why events do not get through
	Sweep    error           // why commands are not published again
	// Stalled is for how long a leader has got nowhere, since the store or the bus does not answer. While all is well it
	// is less than a second.
	Stalled time.Duration
	// Lag is since when a leader has not been at the end of the log: whatever was recorded before is on the bus.
	Lag time.Duration
}

// Relay is made by New.
type Relay struct {
	Options
	mu     sync.Mutex
	status Status
	round  time.Time // when a leader last came to the end of a page
	ended  time.Time // when it last came to the end of the log
}

// New returns a relay that does nothing until Run.
func New(o Options) *Relay {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	for d, v := range map[*time.Duration]time.Duration{
		&o.Gather: 10 * time.Millisecond, &o.Poll: 250 * time.Millisecond, &o.Sweep: time.Second, &o.Check: 5 * time.Second,
		&o.Forget: time.Hour, &o.Retry: time.Second,
	} {
		if *d == 0 {
			*d = v
		}
	}
	return &Relay{Options: o}
}

// Run relays whenever this process leads, until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	for {
		err := r.lead(ctx)
		r.set(func(s *Status) { *s = Status{Lead: err} })
		if ctx.Err() != nil {
			return
		}
		r.Log.Warn("relay does not lead", "err", err)
		if !pause(ctx, r.Retry) {
			return
		}
		r.set(func(s *Status) { s.Lead = nil })
	}
}

// Status is how the relay does now.
func (r *Relay) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	if s.Leading {
		s.Stalled, s.Lag = r.Clock().Sub(r.round), r.Clock().Sub(r.ended)
	}
	return s
}

func (r *Relay) set(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
}

// lead waits for the leadership and works until ctx ends, the leadership is lost, or the event stream shows that
// somebody else works as well.
func (r *Relay) lead(ctx context.Context) error {
	lead, release, err := r.Leader.Lead(ctx, leadership)
	if err != nil {
		return err
	}
	defer release()
	r.set(func(s *Status) { *s, r.round, r.ended = Status{Leading: true}, r.Clock(), r.Clock() })
	r.Log.Info("relay leads")
	g, work := errgroup.WithContext(lead)
	g.Go(func() error { return r.relayEvents(work) })
	g.Go(func() error { return r.sweepCommands(work) })
	g.Go(func() error { r.forgetCommands(work); return nil })
	if err := g.Wait(); err != nil {
		return err
	}
	return context.Cause(lead)
}

// relayEvents tails the store. It takes the end of the stream anew after each failure, for what a failed publication
// did is not known; and gives up when somebody else has published.
func (r *Relay) relayEvents(ctx context.Context) error {
	nudges, stop := r.Bus.Nudges()
	defer stop()
	for {
		err := r.tail(ctx, nudges)
		if ctx.Err() != nil {
			return nil
		}
		r.set(func(s *Status) { s.Events = err })
		if errors.Is(err, bus.ErrTailMoved) {
			return err
		}
		r.Log.Error("events are not relayed; trying again", "err", err)
		if !pause(ctx, r.Retry) {
			return nil
		}
	}
}

// tail publishes what the store holds behind the end of the stream, and then what is appended. It returns only with an
// error or when ctx ends.
func (r *Relay) tail(ctx context.Context, nudges <-chan struct{}) error {
	end, err := r.end(ctx)
	if err != nil {
		return err
	}
	poll := time.NewTicker(r.Poll)
	defer poll.Stop()
	checked := r.Clock()
	for {
		more, err := r.relayPage(ctx, &end)
		if err != nil {
			return err
		}
		r.set(func(s *Status) {
			if s.Events, s.Position, r.round = nil, end.Position, r.Clock(); !more {
				r.ended = r.round
			}
		})
		if more {
			continue
		}
		if now := r.Clock(); now.Sub(checked) >= r.Check {
			checked = now
			if err := r.check(ctx, end); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-nudges: // what one operation appends comes within milliseconds: it goes out at once
			if !pause(ctx, r.Gather) {
				return ctx.Err()
			}
		case <-poll.C:
		}
	}
}

// end reads the end of the stream, which must be a place in this store's log.
func (r *Relay) end(ctx context.Context) (bus.Tail, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	end, err := r.Bus.Tail(ctx)
	if err != nil {
		return end, err
	}
	last, err := r.Store.End(ctx)
	if err != nil {
		return end, err
	}
	if end.Position.Compare(last) > 0 {
		return end, fmt.Errorf("%s holds events that the store does not: it is another log's, or the store was set back; purge it to have it filled again", events.EventStream)
	}
	return end, nil
}

// relayPage publishes the next events behind end and moves it.
func (r *Relay) relayPage(ctx context.Context, end *bus.Tail) (more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	page, err := r.Store.Read(ctx, end.Position, eventstore.ReadOptions{Limit: bus.MaxEvents})
	if err != nil || len(page.Events) == 0 {
		return false, err
	}
	*end, err = r.Bus.PublishEvents(ctx, *end, page.Events, r.Domain)
	return page.More, err
}

// check finds a stream that was lost or purged while there was nothing to publish.
func (r *Relay) check(ctx context.Context, end bus.Tail) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	now, err := r.Bus.Tail(ctx)
	if err == nil && now != end {
		err = bus.ErrTailMoved
	}
	return err
}

// pause waits, or returns false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
