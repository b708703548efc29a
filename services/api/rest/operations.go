package rest

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/submit"
)

// ListOperations implements StrictServerInterface, as the methods below do.
func (s *Server) ListOperations(ctx context.Context, r ListOperationsRequestObject) (ListOperationsResponseObject, error) {
	if r.Params.Resource == nil {
		return s.list(ctx, submit.Operations, nil)
	}
	fixed := map[string][]string{"resource": {*r.Params.Resource}}
	if _, err := uuid.Parse(*r.Params.Resource); err == nil {
		callOf(ctx).query.Del("resource")
		fixed = map[string][]string{"resource_id": {*r.Params.Resource}}
	}
	return s.list(ctx, submit.Operations, fixed)
}

func (s *Server) GetOperation(ctx context.Context, r GetOperationRequestObject) (GetOperationResponseObject, error) {
	op := named(submit.Operations, r.ID.String())
	wait := callOf(ctx).wait()
	if wait == 0 || r.Params.At != nil {
		return s.show(ctx, op)
	}
	if _, err := s.Submit.Object(ctx, op.Resource, "", op.text); err != nil {
		return nil, err
	}
	ended, err := s.Submit.Ended(ctx, r.ID, wait)
	if err != nil {
		return nil, err
	}
	var v operation.View
	if err := json.Unmarshal(ended.Doc, &v); err != nil {
		return nil, err
	}
	return view(ended.Doc, v.Version, ended.Position), nil
}

func (s *Server) ListOperationHistory(ctx context.Context, r ListOperationHistoryRequestObject) (ListOperationHistoryResponseObject, error) {
	return s.history(ctx, named(submit.Operations, r.ID.String()))
}

func (s *Server) CancelOperation(ctx context.Context, r CancelOperationRequestObject) (CancelOperationResponseObject, error) {
	c := callOf(ctx)
	op, err := s.Submit.Cancel(ctx, c.request(), r.ID, s.Resources)
	return accepted(op, c.wait() > 0), err
}

func (s *Server) ListOperationLog(ctx context.Context, r ListOperationLogRequestObject) (ListOperationLogResponseObject, error) {
	if err := s.caughtUp(ctx, operation.Kind); err != nil {
		return nil, err
	}
	h, err := s.Store.Load(ctx, events.NewStream(operation.Kind, r.ID))
	if err != nil {
		return nil, err
	}
	recorded := h[0].Events
	if len(recorded) == 0 {
		return nil, problem.New(problem.NotFound, "there is no operation %s", r.ID)
	}
	known := recorded[len(recorded)-1].Position
	if r.Params.Cursor != nil {
		after, err := strconv.ParseInt(*r.Params.Cursor, 10, 64)
		if err != nil || after < 1 {
			return nil, problem.Invalid(problem.Field{Field: "query.cursor", Detail: "not a cursor of this list"})
		}
		recorded = recorded[min(after, int64(len(recorded))):]
	}
	page := openapi.OperationLog{Items: []openapi.OperationLogEntry{}, Position: known.String()}
	if n := or(r.Params.Limit, limit("")); len(recorded) > n {
		next := strconv.FormatInt(recorded[n-1].Version, 10)
		page.Next, recorded = &next, recorded[:n]
	}
	for _, e := range recorded {
		entry, err := logEntry(e)
		if err != nil {
			return nil, err
		}
		page.Items = append(page.Items, entry)
	}
	body, err := json.Marshal(page)
	return document(body, known), err
}

// logEntry takes from an operation's event what a reader of its log wants to know.
func logEntry(e events.Event) (openapi.OperationLogEntry, error) {
	event, err := operation.Codec.Decode(e)
	if err != nil {
		return openapi.OperationLogEntry{}, err
	}
	entry := openapi.OperationLogEntry{Position: e.Position.String(), Time: e.At, Type: e.Type}
	said := func(step string, p *problem.Problem, log string) {
		entry.Error = p
		if step != "" {
			entry.Step = &step
		}
		if log != "" {
			entry.Log = &log
		}
	}
	switch ev := event.(type) {
	case operation.StepSucceeded:
		said(ev.Step, nil, "")
	case operation.StepFailed:
		said(ev.Step, ev.Problem, ev.Log)
	case operation.StepUndone:
		said(ev.Step, ev.Problem, ev.Log)
	case operation.Failed:
		said("", ev.Problem, ev.Log)
	}
	return entry, nil
}
