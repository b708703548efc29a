package submit

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/api/past"
)

// Object is a living object that a call is about.
type Object struct {
	ID   uuid.UUID
	Node string // whose service owns it; events.AnyNode if its view names none
	Doc  json.RawMessage
}

// Object finds a living object by id or by its name in a scope. It does not depend on how far the read model is: an
// object whose create was accepted is found. It fails with not_found.
func (s *Submitter) Object(ctx context.Context, res *events.Resource, scope, ref string) (Object, error) {
	id, err := s.Identify(ctx, res, scope, ref)
	if err != nil {
		return Object{}, err
	}
	missing := problem.New(problem.NotFound, "there is no %s %q", res.Kind, ref)
	if id == uuid.Nil {
		return Object{}, missing
	}
	row, err := s.Model.Find(ctx, res.Kind, id.String())
	if err != nil {
		return Object{}, err
	}
	o := Object{ID: id}
	if row != nil {
		if row.Deleted {
			return Object{}, missing
		}
		o.Doc = row.Doc
	} else {
		now, err := past.Reader{Store: s.Store}.At(ctx, res, id, past.Point{})
		if err != nil {
			return Object{}, err
		}
		if now.Doc == nil || now.Deleted {
			return Object{}, missing
		}
		o.Doc = now.Doc
	}
	var v struct {
		Node string `json:"node"`
	}
	if err := json.Unmarshal(o.Doc, &v); err != nil {
		return Object{}, fmt.Errorf("node of %s %s: %w", res.Kind, id, err)
	}
	o.Node = v.Node
	if o.Node == "" {
		o.Node = events.AnyNode
	}
	return o, nil
}

// Identify returns the id that a reference means, uuid.Nil if nobody has the name in the scope. An id need not be of an
// object that exists.
func (s *Submitter) Identify(ctx context.Context, res *events.Resource, scope, ref string) (uuid.UUID, error) {
	if id, err := uuid.Parse(ref); err == nil {
		return id, nil
	}
	stream, err := s.Store.Lookup(ctx, eventstore.Name{Scope: scope, Value: ref})
	if err != nil || stream.Kind() != res.Kind {
		return uuid.Nil, err
	}
	return stream.ID(), nil
}
