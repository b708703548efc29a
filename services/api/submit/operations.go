package submit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
)

// Operations describes operations as a resource like any other: listed, shown as they were, with a history.
var Operations = &events.Resource{
	Kind: operation.Kind, Collection: "operations", Codec: operation.Codec,
	Begin: func(doc json.RawMessage) (events.Fold, error) {
		f := &view{any: doc != nil}
		if doc != nil {
			if err := json.Unmarshal(doc, &f.View); err != nil {
				return nil, fmt.Errorf("view of an operation: %w", err)
			}
		}
		return f, nil
	},
	Filters: []string{"type", "state", "actor", "resource", "resource_id"},
}

// view is the view of an operation in the making.
type view struct {
	operation.View
	any bool // it has an event
}

// Apply implements events.Fold: an operation is never deleted.
func (f *view) Apply(e events.Event) (deleted bool, err error) {
	next, err := operation.Apply(f.View, e)
	if err == nil {
		f.View, f.any = next, true
	}
	return false, err
}

// Doc implements events.Fold.
func (f *view) Doc() (json.RawMessage, error) {
	if !f.any {
		return nil, nil
	}
	return json.Marshal(f.View)
}

// Cancel asks the owner of an operation to stop it and take back what it did. It makes no operation of its own: the
// answer is the operation itself.
func (s *Submitter) Cancel(ctx context.Context, r Request, id uuid.UUID, resources []*events.Resource) (Operation, error) {
	return s.tell(s.cancel(ctx, r, id, resources))
}

func (s *Submitter) cancel(ctx context.Context, r Request, id uuid.UUID, resources []*events.Resource) (Operation, error) {
	ctx = trace.Operation(ctx, id)
	if r.Key != "" {
		known, err := s.Store.Request(ctx, r.Caller.Actor, r.Key)
		switch {
		case err != nil:
			return Operation{}, err
		case known != nil && !bytes.Equal(known.Request, r.Digest):
			return Operation{}, keyReused(r.Key)
		case known != nil:
			return s.answer(ctx, id, events.Position{}, r.Wait)
		}
	}
	op, _, err := s.look(ctx, id)
	if err != nil {
		return Operation{}, err
	}
	if op.Doc == nil {
		return Operation{}, problem.New(problem.NotFound, "there is no operation %s", id)
	}
	var v operation.View
	if err := json.Unmarshal(op.Doc, &v); err != nil {
		return Operation{}, err
	}
	refused := func(detail string) (Operation, error) {
		p := problem.New(problem.InvalidState, "%s", detail)
		p.Operation = id.String()
		return Operation{}, p
	}
	i := slices.IndexFunc(resources, func(res *events.Resource) bool { return res.Kind == events.Command{Type: v.Type}.Kind() })
	switch {
	case v.State.Ended():
		return refused("the operation has ended: " + string(v.State))
	case v.Node == nil || i < 0:
		return refused("nobody has taken up the operation yet")
	}
	cmd := events.Command{
		ID: events.NewID(), To: events.Address{Domain: resources[i].Domain, Node: v.Node.String()}, Type: "operation.cancel", Target: id,
		Meta: events.Meta{
			Actor: r.Caller.Actor, Auth: r.Caller.Auth, Reason: r.Reason, Correlation: id, Operation: id, Traceparent: r.Traceparent,
		},
		Deadline: s.Clock().Add(s.Deadline).UTC(),
	}
	a := eventstore.Append{Meta: cmd.Meta, Send: []events.Command{cmd}}
	if r.Key != "" {
		a.Idempotency = &eventstore.Idempotency{Actor: r.Caller.Actor, Key: r.Key, Request: r.Digest, Operation: id}
	}
	if _, err := s.Store.Append(ctx, a); err != nil {
		return Operation{}, fmt.Errorf("record cancel: %w", err)
	}
	decision, err := s.ask(ctx, cmd)
	switch {
	case err != nil:
		return Operation{}, err
	case decision == nil:
		return s.answer(ctx, id, events.Position{}, r.Wait)
	case decision.Rejection != nil:
		return Operation{}, s.rejected(decision, id)
	}
	return s.answer(ctx, id, decision.Position, r.Wait)
}
