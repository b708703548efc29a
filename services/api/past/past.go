// Package past answers what objects were: any kind of object, from nothing but its events and the pure fold of its
// resource.
package past

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Point is a time or a position; the zero point is now.
type Point struct {
	Time     time.Time
	Position events.Position
}

// ParsePoint reads a time (RFC 3339) or a position. field names it in the problem.
func ParsePoint(field, text string) (Point, error) {
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return Point{Time: t}, nil
	}
	if p, err := events.ParsePosition(text); err == nil && !p.IsZero() {
		return Point{Position: p}, nil
	}
	return Point{}, problem.Invalid(problem.Field{Field: field, Detail: "neither a time (RFC 3339) nor a position"})
}

// has says whether an event had happened at the point.
func (p Point) has(e events.Event) bool {
	switch {
	case !p.Time.IsZero():
		return !e.At.After(p.Time)
	case !p.Position.IsZero():
		return e.Position.Compare(p.Position) <= 0
	}
	return true
}

// Object as it was.
type Object struct {
	ID      uuid.UUID
	Doc     json.RawMessage // as the API returns it; nil if it did not exist
	Version int64
	Deleted bool // it had ended
}

// Reader answers from the events of a store.
type Reader struct{ Store eventstore.Reader }

// At returns an object at a point. It fails with eventstore.ErrUnknownEra for a position of another log.
func (r Reader) At(ctx context.Context, res *events.Resource, id uuid.UUID, point Point) (Object, error) {
	if err := r.known(ctx, point.Position); err != nil {
		return Object{}, err
	}
	history, err := r.load(ctx, res, id)
	if err != nil {
		return Object{}, err
	}
	return Fold(res, id, history, point)
}

// known fails for a position of an era that the log does not know.
func (r Reader) known(ctx context.Context, p events.Position) error {
	if p.IsZero() {
		return nil
	}
	_, err := r.Store.Read(ctx, p, eventstore.ReadOptions{Limit: 1})
	return err
}

func (r Reader) load(ctx context.Context, res *events.Resource, id uuid.UUID) ([]events.Event, error) {
	h, err := r.Store.Load(ctx, events.NewStream(res.Kind, id))
	if err != nil {
		return nil, fmt.Errorf("load %s %s: %w", res.Kind, id, err)
	}
	return h[0].Events, nil
}

// Fold makes an object of its events up to a point.
func Fold(res *events.Resource, id uuid.UUID, history []events.Event, point Point) (Object, error) {
	o := Object{ID: id}
	f, err := res.Fold(nil)
	if err != nil {
		return Object{}, err
	}
	for _, e := range history {
		if !point.has(e) {
			break
		}
		deleted, err := f.Apply(e)
		if err != nil {
			return Object{}, fmt.Errorf("fold %s: %w", e.Stream, err)
		}
		o.Version, o.Deleted = e.Version, o.Deleted || deleted
	}
	o.Doc, err = f.Doc()
	return o, err
}

// Change is one event of an object, and what it changed.
type Change struct {
	Position  events.Position            `json:"position"`
	Version   int64                      `json:"version"`
	Time      time.Time                  `json:"time"`
	Type      string                     `json:"type"`
	Actor     string                     `json:"actor"` // who wanted it; the event names the service too
	Reason    *string                    `json:"reason"`
	Operation *uuid.UUID                 `json:"operation"`
	Before    map[string]json.RawMessage `json:"before"` // the fields that changed, as they were
	After     map[string]json.RawMessage `json:"after"`
}

// History is a page of an object's changes, oldest first.
type History struct {
	Items    []Change        `json:"items"`
	Next     *string         `json:"next"`
	Position events.Position `json:"position"`
}

// History returns the changes after a cursor ("" for the first page), at most limit. Of an object without an event it
// is nil.
func (r Reader) History(ctx context.Context, res *events.Resource, id uuid.UUID, cursor string, limit int) (*History, error) {
	after := int64(0)
	if cursor != "" {
		v, err := strconv.ParseInt(cursor, 10, 64)
		if err != nil || v < 1 || strconv.FormatInt(v, 10) != cursor {
			return nil, problem.Invalid(problem.Field{Field: "query.cursor", Detail: "not a cursor of this list"})
		}
		after = v
	}
	recorded, err := r.load(ctx, res, id)
	if err != nil || len(recorded) == 0 {
		return nil, err
	}
	h := &History{Items: []Change{}, Position: recorded[len(recorded)-1].Position}
	var before map[string]json.RawMessage
	f, err := res.Fold(nil)
	if err != nil {
		return nil, err
	}
	for _, e := range recorded {
		if len(h.Items) == limit {
			next := strconv.FormatInt(e.Version-1, 10)
			h.Next = &next
			break
		}
		if _, err := f.Apply(e); err != nil {
			return nil, fmt.Errorf("fold %s: %w", e.Stream, err)
		}
		if e.Version < after {
			continue
		}
		doc, err := f.Doc()
		if err != nil {
			return nil, err
		}
		var now map[string]json.RawMessage
		if err := json.Unmarshal(doc, &now); err != nil {
			return nil, err
		}
		if e.Version > after {
			h.Items = append(h.Items, change(e, before, now))
		}
		before = now
	}
	return h, nil
}

// bookkeeping are fields that change with every event and say nothing.
var bookkeeping = map[string]bool{"version": true, "updated_at": true, "position": true}

func change(e events.Event, before, after map[string]json.RawMessage) Change {
	c := Change{
		Position: e.Position, Version: e.Version, Time: e.At, Type: e.Type, Actor: e.Meta.Principal(),
		Before: map[string]json.RawMessage{}, After: map[string]json.RawMessage{},
	}
	if e.Meta.Reason != "" {
		c.Reason = &e.Meta.Reason
	}
	if e.Meta.Operation != uuid.Nil {
		c.Operation = &e.Meta.Operation
	}
	for field, now := range after {
		was, existed := before[field]
		if bookkeeping[field] || (existed && bytes.Equal(was, now)) {
			continue
		}
		if existed {
			c.Before[field] = was
		}
		c.After[field] = now
	}
	for field, was := range before {
		if _, still := after[field]; !still && !bookkeeping[field] {
			c.Before[field] = was
		}
	}
	return c
}
