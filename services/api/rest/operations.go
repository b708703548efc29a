package rest

import (
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"slices"
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
	if id, err := uuid.Parse(*r.Params.Resource); err == nil {
		callOf(ctx).query.Del("resource")
		return s.list(ctx, submit.Operations, map[string][]string{"resource_id": {id.String()}})
	}
	path, err := s.canonical(ctx, *r.Params.Resource)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, submit.Operations, map[string][]string{"resource": {path}})
}

var (
	objectPath = regexp.MustCompile(`^/api/(.+)/([^/]+)$`)
	volumePath = regexp.MustCompile(`^/api/storage/pools/([^/]+)/volumes/([^/]+)$`)
)

// canonical is the path of an object with ids in the place of names, as its operations have it. A path by which there
// is nothing now stays as it is.
func (s *Server) canonical(ctx context.Context, path string) (string, error) {
	r, err := s.objectAt(ctx, path)
	if p := problem.From(err); p != nil && p.Code == problem.NotFound {
		return path, nil
	}
	if err != nil {
		return "", err
	}
	id, err := s.Submit.Identify(ctx, r.Resource, r.scope, r.text)
	if err != nil || id == uuid.Nil {
		return path, err
	}
	return "/api/" + r.collection + "/" + id.String(), nil
}

// objectAt is the object that a path names. It fails with not_found.
func (s *Server) objectAt(ctx context.Context, path string) (ref, error) {
	none := problem.New(problem.NotFound, "%q is not the path of an object", path)
	if m := volumePath.FindStringSubmatch(path); m != nil {
		pool, err := url.PathUnescape(m[1])
		if err != nil {
			return ref{}, none
		}
		return s.volume(ctx, pool, m[2])
	}
	m := objectPath.FindStringSubmatch(path)
	if m == nil {
		return ref{}, none
	}
	text, err := url.PathUnescape(m[2])
	i := slices.IndexFunc(s.Resources, func(r *events.Resource) bool { return r.Collection == m[1] })
	if err != nil || i < 0 {
		return ref{}, none
	}
	return named(s.Resources[i], text), nil
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
	c.operation = r.ID
	req, err := c.request(s.Secrets)
	if err != nil {
		return nil, err
	}
	op, err := s.Submit.Cancel(ctx, req, r.ID, s.Resources)
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
		entry.Error = p.Document()
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
