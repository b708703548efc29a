package rest

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/labstack/echo/v4"

	"horcrux/pkg/eventstore"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/readmodel"
)

// problemOf is what a user may know of an error. ours says that the error is ours and has to be logged.
func problemOf(err error) (p *problem.Problem, ours bool) {
	if p := problem.From(err); p != nil {
		return p, p.Code == problem.Internal
	}
	var he *echo.HTTPError
	switch {
	case errors.Is(err, echo.ErrNotFound):
		return problem.New(problem.NotFound, "there is no such path"), false
	case errors.Is(err, echo.ErrMethodNotAllowed):
		return problem.New(problem.MethodNotAllowed, "the path does not know this method"), false
	case errors.As(err, &he) && he.Code == http.StatusBadRequest:
		return problem.New(problem.MalformedRequest, "the request is malformed"), false
	case errors.Is(err, eventstore.ErrUnknownEra):
		return problem.New(problem.PositionGone, "the position is of a log that is not this one"), false
	case errors.Is(err, readmodel.ErrHalted):
		return problem.New(problem.Unavailable, "the read model stands still; see /readyz"), true
	case errors.Is(err, readmodel.ErrBehind):
		return problem.New(problem.DeadlineExceeded, "the read model has not got to the position in time"), false
	case errors.Is(err, eventstore.ErrInvalid):
		return problem.New(problem.InvalidValue, "the request holds a value that cannot be recorded"), true
	case errors.Is(err, eventstore.ErrUnavailable), databaseDown(err):
		return problem.New(problem.Unavailable, "the database cannot be reached now"), true
	case errors.Is(err, context.DeadlineExceeded):
		return problem.New(problem.Unavailable, "the answer took too long"), true
	}
	return problem.New(problem.Internal, "something went wrong here; the log says what, under the trace"), true
}

// databaseDown says whether a query failed for want of a database.
func databaseDown(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		class := pg.Code[:min(2, len(pg.Code))]
		return class == "08" || class == "57" || class == "53" // connection, operator, resources
	}
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, net.ErrClosed) || pgconn.SafeToRetry(err)
}

// writeProblem answers with application/problem+json.
func writeProblem(w http.ResponseWriter, p *problem.Problem, trace string) error {
	d := p.Document()
	out := openapi.Problem{Type: d.Type, Title: d.Title, Status: d.Status, Code: d.Code, Detail: d.Detail, Fields: d.Fields}
	if id, err := uuid.Parse(p.Operation); err == nil {
		out.Operation = &id
	}
	if trace != "" {
		out.Trace = &trace
	}
	b, err := json.Marshal(out)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	switch p.Code {
	case problem.Unauthenticated:
		h.Set("WWW-Authenticate", `Bearer realm="horcrux"`)
	case problem.Unavailable, problem.HypervisorUnavailable, problem.StorageUnavailable, problem.TooManyRequests, problem.IdempotencyInProgress:
		h.Set("Retry-After", "1")
	}
	w.WriteHeader(out.Status)
	_, err = w.Write(b)
	return err
}
