// Package memory keeps an event store in memory, with the meaning of the one in Postgres: for tests that have to be
// fast.
package memory

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/chain"
)

// era of every position: a store in memory never moves.
const era = 1

// Store is an event store in memory.
type Store struct {
	clock  func() time.Time
	nudges *eventstore.Nudges

	mu       sync.Mutex
	log      []events.Event
	tx       uint64
	streams  map[events.Stream]*stream
	names    map[eventstore.Name]events.Stream
	commands map[uuid.UUID]*command
	requests map[requestKey]request
}

type stream struct {
	events []events.Event
	open   string
}

func (s *stream) head() eventstore.Head {
	if s == nil || len(s.events) == 0 {
		return eventstore.Head{}
	}
	last := s.events[len(s.events)-1]
	return eventstore.Head{Version: last.Version, Hash: last.Hash, At: last.At}
}

type command struct {
	raw      []byte // canonical JSON, nil if it was never sent
	recorded time.Time
	attempts int
	next     time.Time
	deadline time.Time
	outcome  *eventstore.Outcome
	decided  time.Time
}

func (c *command) undecided() bool { return c != nil && c.outcome == nil }

type requestKey struct{ actor, key string }

type request struct {
	eventstore.Idempotency
	recorded time.Time
}

var _ eventstore.Store = (*Store)(nil)

// New returns an empty store. clock is time.Now if nil.
func New(clock func() time.Time) *Store {
	if clock == nil {
		clock = time.Now
	}
	return &Store{
		clock:    clock,
		nudges:   eventstore.NewNudges(),
		streams:  map[events.Stream]*stream{},
		names:    map[eventstore.Name]events.Stream{},
		commands: map[uuid.UUID]*command{},
		requests: map[requestKey]request{},
	}
}

// Append implements eventstore.Store.
func (s *Store) Append(ctx context.Context, a eventstore.Append) (eventstore.Result, error) {
	if err := ctx.Err(); err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.append(a)
}

// Locked implements eventstore.Store.
func (s *Store) Locked(ctx context.Context, command uuid.UUID, streams []events.Stream, decide eventstore.Decision) (eventstore.Result, error) {
	if err := ctx.Err(); err != nil {
		return eventstore.Result{}, fmt.Errorf("append under lock: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o := s.outcome(command); o != nil {
		return eventstore.Result{Outcome: *o, Duplicate: true}, nil
	}
	a, err := decide(s.load(streams))
	if err != nil {
		return eventstore.Result{}, err
	}
	a.Command = command
	for _, sa := range a.Streams {
		if !slices.Contains(streams, sa.Stream) {
			return eventstore.Result{}, fmt.Errorf("append under lock: %w: stream %s is not locked", eventstore.ErrInvalid, sa.Stream)
		}
	}
	return s.append(a)
}

// append runs under the lock. Nothing is changed before all is checked.
func (s *Store) append(a eventstore.Append) (eventstore.Result, error) {
	sealed, err := chain.Seal(a, s.clock())
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", err)
	}
	if o := s.outcome(a.Command); o != nil {
		return eventstore.Result{Outcome: *o, Duplicate: true}, nil
	}
	if k := a.Idempotency; k != nil && s.request(k.Actor, k.Key) != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", eventstore.ErrKeyTaken)
	}
	for _, sa := range a.Streams {
		head := s.streams[sa.Stream].head()
		if head.Version != sa.Head.Version || !bytes.Equal(head.Hash, sa.Head.Hash) {
			return eventstore.Result{}, fmt.Errorf("append to %s at version %d: %w", sa.Stream, sa.Head.Version, eventstore.ErrWrongVersion)
		}
	}
	if err := s.checkNames(a.Streams); err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", err)
	}
	outcome := s.record(a, sealed)
	s.nudges.Nudge(a)
	return eventstore.Result{Events: slices.Clone(sealed.Events), Outcome: outcome}, nil
}

// checkNames says whether all claims would succeed after all releases.
func (s *Store) checkNames(streams []eventstore.StreamAppend) error {
	changed := map[eventstore.Name]events.Stream{}
	holder := func(n eventstore.Name) events.Stream {
		if h, ok := changed[n]; ok {
			return h
		}
		return s.names[n]
	}
	for _, sa := range streams {
		for _, n := range sa.Release {
			if holder(n) == sa.Stream {
				changed[n] = ""
			}
		}
	}
	for _, sa := range streams {
		for _, n := range sa.Claim {
			if h := holder(n); h != "" && h != sa.Stream {
				return &eventstore.NameTakenError{Name: n, Holder: h}
			}
			changed[n] = sa.Stream
		}
	}
	return nil
}

// record changes the state, and completes the sealed events with their positions.
func (s *Store) record(a eventstore.Append, sealed chain.Sealed) eventstore.Outcome {
	outcome := eventstore.Outcome{Rejection: a.Rejection}
	s.tx++
	for i := range sealed.Events {
		e := &sealed.Events[i]
		e.Position = events.Position{Era: era, Tx: s.tx, Seq: int64(len(s.log) + 1)}
		outcome.Position = e.Position
		s.log = append(s.log, *e)
		if s.streams[e.Stream] == nil {
			s.streams[e.Stream] = &stream{}
		}
		s.streams[e.Stream].events = append(s.streams[e.Stream].events, *e)
	}
	for _, sa := range a.Streams {
		if len(sa.Events) > 0 {
			s.streams[sa.Stream].open = sa.Open
		}
		for _, n := range sa.Release {
			if s.names[n] == sa.Stream {
				delete(s.names, n)
			}
		}
	}
	for _, sa := range a.Streams {
		for _, n := range sa.Claim {
			s.names[n] = sa.Stream
		}
	}
	for i, c := range a.Send {
		if s.commands[c.ID] == nil {
			s.commands[c.ID] = &command{raw: sealed.Send[i], recorded: sealed.Now, deadline: c.Deadline, next: sealed.Now.Add(eventstore.FirstDue)}
		}
	}
	if k := a.Idempotency; k != nil {
		s.requests[requestKey{k.Actor, k.Key}] = request{*k, sealed.Now}
	}
	if a.Command != uuid.Nil {
		if s.commands[a.Command] == nil {
			s.commands[a.Command] = &command{recorded: sealed.Now}
		}
		c := s.commands[a.Command]
		c.outcome, c.decided = &outcome, sealed.Now
	}
	return outcome
}

// Due implements eventstore.Store.
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]eventstore.Undecided, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("due commands: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []*command
	for _, c := range s.commands {
		if c.undecided() && !c.next.After(at) {
			due = append(due, c)
		}
	}
	slices.SortFunc(due, func(a, b *command) int { return a.next.Compare(b.next) })
	var out []eventstore.Undecided
	for _, c := range due[:min(limit, len(due))] {
		u := eventstore.Undecided{Attempt: c.attempts, Recorded: c.recorded}
		if err := json.Unmarshal(c.raw, &u.Command); err != nil {
			return nil, fmt.Errorf("due commands: %w", err)
		}
		out = append(out, u)
	}
	return out, nil
}

// Published implements eventstore.Store.
func (s *Store) Published(ctx context.Context, id uuid.UUID, next time.Time) error {
	return s.change(ctx, id, func(c *command) { c.attempts, c.next = c.attempts+1, next })
}

// Park implements eventstore.Store.
func (s *Store) Park(ctx context.Context, id uuid.UUID) error {
	return s.change(ctx, id, func(c *command) { c.next = c.deadline })
}

// Unpark implements eventstore.Store.
func (s *Store) Unpark(ctx context.Context, id uuid.UUID) error {
	now := s.clock()
	return s.change(ctx, id, func(c *command) { c.next = now })
}

// Forget implements eventstore.Store.
func (s *Store) Forget(ctx context.Context, before time.Time, limit int) (n int, err error) {
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("forget commands: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, c := range s.commands {
		if n < limit && !c.undecided() && c.decided.Before(before) {
			delete(s.commands, id)
			n++
		}
	}
	return n, nil
}

func (s *Store) change(ctx context.Context, id uuid.UUID, change func(*command)) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("change command %s: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.commands[id]; c.undecided() {
		change(c)
	}
	return nil
}

// Nudged implements eventstore.Store.
func (s *Store) Nudged() <-chan struct{} { return s.nudges.Nudged() }
