package rest

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
	"horcrux/services/api/past"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/submit"
)

// What every kind of object can be asked, from its resource alone.

// positionTime is how long min_position waits.
const positionTime = 5 * time.Second

// ref names an object of a kind as a path does: by id, or by its name in a scope.
type ref struct {
	*events.Resource
	collection string // path below /api of the collection that it is in
	scope      string
	text       string
}

func named(r *events.Resource, text string) ref { return ref{r, r.Collection, r.NameScope, text} }

func (r ref) missing() error {
	return problem.New(problem.NotFound, "there is no %s %q", r.Kind, r.text)
}

// toldTime is how long a GET waits, unasked, for what an earlier answer told.
const toldTime = time.Second

// asTold waits for the read model of a kind to get to what this gateway has told anybody: who was answered that a
// machine is there finds it in the list. It is a courtesy: where the read model is held up it is shown as it is.
func (s *Server) asTold(ctx context.Context, kind string) error {
	told := s.Submit.Told()
	if s.Model.Position(kind).Compare(told) >= 0 {
		return nil
	}
	within, cancel := context.WithTimeout(ctx, toldTime)
	defer cancel()
	if err := s.Model.Reach(within, kind, told); err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// caughtUp waits for the read model of a kind to get to min_position, and to what was told.
func (s *Server) caughtUp(ctx context.Context, kind string) error {
	pos, err := position("query.min_position", callOf(ctx).query.Get("min_position"))
	if err == nil {
		err = s.asTold(ctx, kind)
	}
	if err != nil || pos.IsZero() {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, positionTime)
	defer cancel()
	return s.Model.Wait(ctx, kind, pos)
}

func position(field, text string) (events.Position, error) {
	p, err := events.ParsePosition(text)
	if err != nil {
		return p, problem.Invalid(problem.Field{Field: field, Detail: "not a position"})
	}
	return p, nil
}

// list answers a page of a kind. Parameters that the document has beyond the usual ones are filters.
func (s *Server) list(ctx context.Context, r *events.Resource, fixed map[string][]string) (answer, error) {
	if err := s.caughtUp(ctx, r.Kind); err != nil {
		return answer{}, err
	}
	q := readmodel.Query{Filters: map[string][]string{}}
	for name, values := range callOf(ctx).query {
		switch name {
		case "limit":
			q.Limit, _ = strconv.Atoi(values[0])
		case "cursor":
			q.Cursor = values[0]
		case "sort":
			q.Sort = values[0]
		case "q":
			q.Contain = values[0]
		case "min_position":
		case "node":
			id, err := s.nodeID(ctx, values[0])
			if err != nil {
				return answer{}, err
			}
			q.Filters[name] = []string{id}
		default:
			q.Filters[name] = values
		}
	}
	for name, values := range fixed {
		q.Filters[name] = values
	}
	page, err := s.Model.List(ctx, r.Kind, q)
	if err != nil {
		return answer{}, err
	}
	a := document(page.JSON(), page.Position)
	a.done = page.Free
	return a, nil
}

// nodeID is the id of a node that is named by id or name. What names no node stays as it is: nothing is on it.
func (s *Server) nodeID(ctx context.Context, text string) (string, error) {
	if id, err := uuid.Parse(text); err == nil {
		return id.String(), nil
	}
	id, err := s.Node(ctx, text)
	if p := problem.From(err); p != nil && p.Code == problem.NotFound {
		return text, nil
	}
	return id.String(), err
}

// show answers an object, as it is or, with at, as it was.
func (s *Server) show(ctx context.Context, r ref) (answer, error) {
	at := callOf(ctx).query.Get("at")
	if at != "" {
		return s.showAt(ctx, r, at)
	}
	if err := s.caughtUp(ctx, r.Kind); err != nil {
		return answer{}, err
	}
	known := s.Model.Position(r.Kind)
	row, err := s.row(ctx, r)
	if err != nil {
		return answer{}, err
	}
	if row == nil || row.Deleted {
		return answer{}, r.missing()
	}
	return view(row.Doc, row.Version, known), nil
}

// row finds an object in the read model.
func (s *Server) row(ctx context.Context, r ref) (*readmodel.Row, error) {
	text := r.text
	if r.scope != r.NameScope { // a name that is unique in a part of its kind
		id, err := s.Submit.Identify(ctx, r.Resource, r.scope, text)
		if err != nil || id == uuid.Nil {
			return nil, err
		}
		text = id.String()
	}
	return s.Model.Find(ctx, r.Kind, text)
}

func (s *Server) showAt(ctx context.Context, r ref, at string) (answer, error) {
	point, err := past.ParsePoint("query.at", at)
	if err != nil {
		return answer{}, err
	}
	id, err := s.Submit.Identify(ctx, r.Resource, r.scope, r.text)
	if err != nil {
		return answer{}, err
	}
	o, err := s.past.At(ctx, r.Resource, id, point)
	if err != nil {
		return answer{}, err
	}
	if o.Doc == nil || o.Deleted {
		return answer{}, problem.New(problem.NotFound, "there was no %s %q then", r.Kind, r.text)
	}
	return view(o.Doc, o.Version, s.Model.Position(r.Kind)), nil
}

// history answers what happened to an object, a deleted one too.
func (s *Server) history(ctx context.Context, r ref) (answer, error) {
	if err := s.caughtUp(ctx, r.Kind); err != nil {
		return answer{}, err
	}
	id, err := s.Submit.Identify(ctx, r.Resource, r.scope, r.text)
	if err != nil {
		return answer{}, err
	}
	query := callOf(ctx).query
	h, err := s.past.History(ctx, r.Resource, id, query.Get("cursor"), limit(query.Get("limit")))
	if err != nil {
		return answer{}, err
	}
	if h == nil {
		return answer{}, r.missing()
	}
	body, err := json.Marshal(h)
	return document(body, h.Position), err
}

// limit of a page; the text has been checked against the document.
func limit(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return readmodel.DefaultLimit
	}
	return n
}

// create asks the service of a kind for a new object. prepare is called unless the call is a repeat.
func (s *Server) create(ctx context.Context, r *events.Resource, prepare func(context.Context) (node string, data any, err error)) (answer, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		node, data, err := prepare(ctx)
		return submit.Intent{
			Resource: r, Collection: r.Collection, Target: events.NewID(), Node: node, Type: r.Kind + ".create", Data: data,
		}, err
	})
}

// command asks the service that owns an object to do something with it.
func (s *Server) command(ctx context.Context, r ref, verb string, data any) (answer, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) { return s.intent(ctx, r, verb, data) })
}

func (s *Server) intent(ctx context.Context, r ref, verb string, data any) (submit.Intent, error) {
	version, err := callOf(ctx).ifVersion()
	if err != nil {
		return submit.Intent{}, err
	}
	o, err := s.Submit.Object(ctx, r.Resource, r.scope, r.text)
	return submit.Intent{
		Resource: r.Resource, Collection: r.collection, Target: o.ID, Node: o.Node, Type: r.Kind + "." + verb, Data: data,
		IfVersion: version,
	}, err
}

// revert asks for the configuration that an object had at a position.
func (s *Server) revert(ctx context.Context, r ref, to string) (answer, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		pos, err := position("to", to)
		if err != nil {
			return submit.Intent{}, err
		}
		version, err := callOf(ctx).ifVersion()
		if err != nil {
			return submit.Intent{}, err
		}
		o, err := s.Submit.Object(ctx, r.Resource, r.scope, r.text)
		if err != nil {
			return submit.Intent{}, err
		}
		now, err := s.past.At(ctx, r.Resource, o.ID, past.Point{})
		if err != nil {
			return submit.Intent{}, err
		}
		then, err := s.past.At(ctx, r.Resource, o.ID, past.Point{Position: pos})
		switch {
		case err != nil:
			return submit.Intent{}, err
		case then.Doc == nil:
			return submit.Intent{}, problem.Invalid(problem.Field{Field: "to", Detail: "the object did not exist then"})
		case r.Revise == nil:
			return submit.Intent{}, problem.New(problem.InvalidState, "the configuration of a %s cannot change", r.Kind)
		}
		revision, err := r.Revise(now.Doc, then.Doc)
		switch {
		case err != nil:
			return submit.Intent{}, err
		case revision == nil:
			return submit.Intent{}, problem.New(problem.InvalidState, "the configuration is what it was then")
		case version == nil:
			version = &now.Version // the revision was made of this version
		}
		return submit.Intent{
			Resource: r.Resource, Collection: r.collection, Target: o.ID, Node: o.Node, Type: revision.Type, Data: revision.Data,
			IfVersion: version,
		}, nil
	})
}

// do makes an operation of the call.
func (s *Server) do(ctx context.Context, intend func(context.Context) (submit.Intent, error)) (answer, error) {
	c := callOf(ctx)
	req, err := c.request(s.Secrets)
	if err != nil {
		return answer{}, err
	}
	op, err := s.Submit.Do(ctx, req, intend)
	c.operation = op.ID
	return accepted(op, c.wait() > 0), err
}
