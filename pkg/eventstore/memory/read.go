package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// Load implements eventstore.Reader.
func (s *Store) Load(ctx context.Context, streams ...events.Stream) ([]eventstore.History, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.load(streams), nil
}

func (s *Store) load(streams []events.Stream) []eventstore.History {
	out := make([]eventstore.History, len(streams))
	for i, name := range streams {
		out[i].Stream = name
		if st := s.streams[name]; st != nil {
			out[i].Head, out[i].Events = st.head(), slices.Clone(st.events)
		}
	}
	return out
}

// Read implements eventstore.Reader.
func (s *Store) Read(ctx context.Context, after events.Position, opts eventstore.ReadOptions) (eventstore.Page, error) {
	if err := ctx.Err(); err != nil {
		return eventstore.Page{}, fmt.Errorf("read: %w", err)
	}
	if !after.IsZero() && after.Era != era {
		return eventstore.Page{}, fmt.Errorf("read after era %d: %w", after.Era, eventstore.ErrUnknownEra)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	limit := opts.PageSize()
	page := eventstore.Page{Next: after}
	start, _ := slices.BinarySearchFunc(s.log, after, func(e events.Event, p events.Position) int {
		if e.Position.Compare(p) <= 0 {
			return -1
		}
		return 1
	})
	for _, e := range s.log[start:] {
		if !opts.Match(e) {
			page.Next = e.Position
			continue
		}
		if len(page.Events) == limit {
			page.More = true
			page.Next = page.Events[limit-1].Position
			return page, nil
		}
		page.Events = append(page.Events, e)
		page.Next = e.Position
	}
	return page, nil
}

// End implements eventstore.Reader.
func (s *Store) End(ctx context.Context) (events.Position, error) {
	if err := ctx.Err(); err != nil {
		return events.Position{}, fmt.Errorf("end: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.log) == 0 {
		return events.Position{}, nil
	}
	return s.log[len(s.log)-1].Position, nil
}

// Outcome implements eventstore.Reader.
func (s *Store) Outcome(ctx context.Context, command uuid.UUID) (*eventstore.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("outcome of command %s: %w", command, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.outcome(command), nil
}

func (s *Store) outcome(command uuid.UUID) *eventstore.Outcome {
	c := s.commands[command]
	if c == nil || c.outcome == nil {
		return nil
	}
	o := *c.outcome
	return &o
}

// Lookup implements eventstore.Reader.
func (s *Store) Lookup(ctx context.Context, name eventstore.Name) (events.Stream, error) {
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("look up %s/%s: %w", name.Scope, name.Value, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name], nil
}

// Holders implements eventstore.Store.
func (s *Store) Holders(ctx context.Context, scope string) ([]events.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("holders of names of %s: %w", scope, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var holders []events.Stream
	for name, stream := range s.names {
		if name.Scope == scope {
			holders = append(holders, stream)
		}
	}
	slices.Sort(holders)
	return holders, nil
}

// Open implements eventstore.Reader.
func (s *Store) Open(ctx context.Context, address string) ([]events.Stream, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open streams of %s: %w", address, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var open []events.Stream
	for name, st := range s.streams {
		if address != "" && st.open == address {
			open = append(open, name)
		}
	}
	slices.Sort(open)
	return open, nil
}

// Request implements eventstore.Reader.
func (s *Store) Request(ctx context.Context, actor, key string) (*eventstore.Idempotency, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("request under a key: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request(actor, key), nil
}

func (s *Store) request(actor, key string) *eventstore.Idempotency {
	r, ok := s.requests[requestKey{actor, key}]
	if !ok || s.clock().Sub(r.recorded) >= eventstore.KeyLifetime {
		return nil
	}
	return &r.Idempotency
}
