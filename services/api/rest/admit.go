package rest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
	"horcrux/services/api/access"
	"horcrux/services/api/submit"
)

// call is a request that has been admitted.
type call struct {
	*route
	caller access.Caller
	req    *http.Request
	query  url.Values
	body   []byte

	operation uuid.UUID // that the call became, once that is known
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	if c == nil {
		c = &call{}
	}
	return c
}

// answerTime is how long an answer may take besides what the caller asked to wait.
const answerTime = 30 * time.Second

// maxWait is the longest that a caller may wait.
const maxWait = 300 * time.Second

// authTime is how long it may take to say who calls.
const authTime = 5 * time.Second

// admit lets a request through that the document knows, whose caller may make it, and which is well-formed. Everything
// that is refused here has left no trace.
func (s *Server) admit(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		req := c.Request()
		known := callOf(req.Context())
		r := s.contract.routes[req.Method+" "+c.Path()]
		if r == nil || !r.public {
			caller, err := s.authenticate(req)
			if err != nil {
				return err
			}
			privilege := ""
			if r != nil {
				privilege = r.privilege
			}
			if err := caller.May(privilege); err != nil {
				return err
			}
			known.caller = caller
		}
		if r == nil {
			return next(c) // echo's answer: no such path, or no such method
		}
		known.route, known.req = r, req
		if r.planned {
			return next(c)
		}
		if err := s.built(r.feature); err != nil {
			return err
		}
		var err error
		if known.query, err = url.ParseQuery(req.URL.RawQuery); err != nil {
			return malformed("query", "not validly escaped")
		}
		if err := r.checkParams(req, known.query, c.Param); err != nil {
			return err
		}
		if known.body, err = r.readBody(c.Response(), req); err != nil {
			return err
		}
		if known.streams() {
			return next(c)
		}
		ctx, cancel := context.WithTimeout(access.With(req.Context(), known.caller), answerTime+known.wait())
		defer cancel()
		c.SetRequest(req.WithContext(ctx))
		return next(c)
	}
}

// authenticate says who sends a request, within authTime.
func (s *Server) authenticate(req *http.Request) (access.Caller, error) {
	ctx, cancel := context.WithTimeout(req.Context(), authTime)
	defer cancel()
	return s.Authenticate(req.WithContext(ctx))
}

// built refuses what needs a feature that this binary was built without; "" needs none.
func (s *Server) built(feature string) error {
	if feature == "" || slices.ContainsFunc(s.Features, func(f openapi.Feature) bool { return f.Name == feature && f.Built }) {
		return nil
	}
	return problem.New(problem.FeatureNotBuilt, "this binary was built without %s; build it with USE=%s", feature, feature)
}

// streams says whether the answer does not end: the caller wants a stream, and the route has one.
func (c *call) streams() bool {
	return c.follows && slices.ContainsFunc(c.req.Header.Values("Accept"), func(v string) bool {
		return strings.Contains(v, "text/event-stream")
	})
}

func (c *call) wait() time.Duration {
	n, _ := strconv.Atoi(c.query.Get("wait"))
	return min(time.Duration(n)*time.Second, maxWait)
}

// request is what the call has in common with all mutating calls.
func (c *call) request(secrets Secrets) (r submit.Request, err error) {
	r = submit.Request{
		Caller: c.caller, Reason: c.query.Get("reason"), Traceparent: trace.Parent(c.req.Context()), Key: c.req.Header.Get("Idempotency-Key"),
		Wait: c.wait(),
	}
	if r.Key != "" {
		r.Digest, err = c.digest(secrets)
	}
	return r, err
}

// digest tells the request from others that bear the same Idempotency-Key. It is kept, and of a plain hash a password could
// be guessed: with one in the body it is keyed.
func (c *call) digest(secrets Secrets) ([]byte, error) {
	query := maps.Clone(c.query)
	query.Del("wait")
	var all bytes.Buffer
	for _, part := range []string{c.method, c.req.URL.EscapedPath(), query.Encode(), string(c.body)} {
		fmt.Fprintf(&all, "%d:%s", len(part), part)
	}
	if bearsPassword(c.body) {
		digest, err := secrets.Digest(all.Bytes())
		return digest, sealError(err)
	}
	sum := sha256.Sum256(all.Bytes())
	return sum[:], nil
}

// bearsPassword says whether a body, JSON or empty, has a password in it.
func bearsPassword(body []byte) bool {
	var doc any
	if json.Unmarshal(body, &doc) != nil {
		return false // nothing will come of it
	}
	return holdsPassword(doc)
}

func holdsPassword(doc any) bool {
	switch doc := doc.(type) {
	case []any:
		return slices.ContainsFunc(doc, holdsPassword)
	case map[string]any:
		if p, ok := doc["password"].(string); ok && p != "" {
			return true
		}
		for _, below := range doc {
			if holdsPassword(below) {
				return true
			}
		}
	}
	return false
}

// ifVersion is the version of If-Match, nil without one, or where any will do.
func (c *call) ifVersion() (*int64, error) {
	tag := c.req.Header.Get("If-Match")
	if tag == "" || tag == "*" {
		return nil, nil
	}
	v, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
	if err != nil {
		return nil, problem.Invalid(problem.Field{Field: "header.If-Match", Detail: "not an ETag of an object"})
	}
	return &v, nil
}

// begin continues the trace of a request, or begins one. A request to the API is a span; that somebody looks whether we
// live is none.
func begin(c echo.Context) (context.Context, trace.Span) {
	name, r := "", c.Request()
	if strings.HasPrefix(c.Path(), "/api/") {
		name = r.Method + " " + c.Path()
	}
	return trace.Begin(r.Context(), r.Header.Get("Traceparent"), name, "http.request.method", r.Method, "http.route", c.Path())
}

// end ends the span of a request.
func end(s trace.Span, status int) {
	if s.Set("http.response.status_code", strconv.Itoa(status)); status >= http.StatusInternalServerError {
		s.Fail(http.StatusText(status))
		return
	}
	s.Done(http.StatusText(status))
}

// observe gives each request its trace, counts it, and makes a problem of an error or a panic.
func (s *Server) observe(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) (err error) {
		known := &call{}
		ctx, span := begin(c)
		ctx = context.WithValue(ctx, callKey{}, known)
		c.SetRequest(c.Request().WithContext(ctx))
		begun := time.Now()
		defer func() {
			if p := recover(); p != nil {
				s.Log.ErrorContext(ctx, "panic", "panic", p, "stack", string(debug.Stack()))
				err = problem.New(problem.Internal, "something went wrong here; the log says what, under the trace")
			}
			if err != nil {
				c.Error(err)
				err = nil
			}
			id := "none"
			if known.route != nil {
				id = known.route.id
			}
			s.metrics.answered(id, c.Response().Status, time.Since(begun))
			end(span, c.Response().Status)
			s.Log.DebugContext(trace.Operation(ctx, known.operation), "answered", "route", id, "status", c.Response().Status,
				"actor", known.caller.Actor, "duration", time.Since(begun))
		}()
		return next(c)
	}
}

// fail answers an error.
func (s *Server) fail(err error, c echo.Context) {
	ctx := c.Request().Context()
	p, ours := problemOf(err)
	level := slog.LevelError
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		level = slog.LevelDebug // the caller went away
	}
	if ours || p.Code == problem.Internal {
		s.Log.Log(ctx, level, "request failed", "method", c.Request().Method,
			"path", c.Request().URL.Path, "error", err)
	}
	if c.Response().Committed {
		return // a stream that broke off
	}
	if err := writeProblem(c.Response(), p, trace.ID(ctx)); err != nil {
		s.Log.DebugContext(ctx, "answer not sent", "error", err)
	}
}

func notImplemented(c echo.Context) error {
	r := callOf(c.Request().Context()).route
	return problem.New(problem.NotImplemented, "%s is documented and not yet written", r.id)
}
