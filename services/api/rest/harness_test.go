package rest

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/labstack/echo/v4"
	"go.uber.org/goleak"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/openapi"
	"horcrux/pkg/pgserver/pgtest"
	"horcrux/pkg/problem"
	"horcrux/services/api/access"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/submit"
)

type exit func() int

func (e exit) Run() int { return e() }

func init() { openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.PlainBodyDecoder) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(exit(func() int { return pgtest.Run(m) })) }

// world is a gateway with its read models in a real Postgres, an event store in memory, and a service that decides in
// the process.
type world struct {
	t       *testing.T
	store   *memory.Store
	service *service
	model   *readmodel.Model
	server  *Server
	http    *httptest.Server
	images  string
	log     *gated      // what the read model reads
	doc     *openapi3.T // against which answers are held, nil for none
}

// gated is a log that is not read while somebody holds its gate.
type gated struct {
	eventstore.Reader
	gate sync.RWMutex
}

func (g *gated) Read(ctx context.Context, after events.Position, o eventstore.ReadOptions) (eventstore.Page, error) {
	g.gate.RLock()
	defer g.gate.RUnlock()
	return g.Reader.Read(ctx, after, o)
}

// newWorld serves the contract, or with widgets that of the second domain.
func newWorld(t *testing.T, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, store: memory.New(nil), images: t.TempDir(), doc: loadDocument(t)}
	w.log = &gated{Reader: w.store}
	w.service = &service{t: t, store: w.store, node: events.NewID(), ending: map[uuid.UUID]chan []events.Event{}}
	pgpool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pgpool.Close)
	log := slog.New(slog.DiscardHandler)
	resources := []*events.Resource{&vm.Resource, &pool.Resource, &volume.Resource, widgetResource}
	w.model, err = readmodel.Open(t.Context(), readmodel.Options{
		Pool: pgpool, Reader: w.log, Resources: append([]*events.Resource{submit.Operations}, resources...), Wake: w.store.Nudged(), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.model.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	o := Options{
		Submit: submit.New(submit.Options{Store: w.store, Bus: w.service, Model: w.model, Log: log, Patience: 200 * time.Millisecond}),
		Model:  w.model, Store: w.store, Resources: resources, Log: log, ImageDirs: []string{w.images},
		Authenticate: func(r *http.Request) (access.Caller, error) {
			switch r.Header.Get("Authorization") {
			case "Bearer admin":
				return access.Caller{Actor: "token:admin", Auth: "token", Administrator: true}, nil
			case "Bearer other":
				return access.Caller{Actor: "token:other", Auth: "token", Administrator: true}, nil
			case "Bearer guest":
				return access.Caller{Actor: "uid:1000", Auth: "peer"}, nil
			}
			return access.Caller{}, nil
		},
		Features: []openapi.Feature{{Name: "qemu", Built: true, Description: "QEMU"}},
		Version:  openapi.Version{Version: "1", Go: "go"},
		Node: func(_ context.Context, ref string) (uuid.UUID, error) {
			if ref == "here" || ref == w.service.node.String() {
				return w.service.node, nil
			}
			return uuid.Nil, problem.New(problem.NotFound, "no such node")
		},
	}
	for _, c := range change {
		c(&o)
	}
	if w.server, err = New(o); err != nil {
		t.Fatal(err)
	}
	w.http = httptest.NewServer(w.server)
	t.Cleanup(func() {
		w.server.Drain()
		w.http.Close()
	})
	return w
}

// serveWidgets makes the gateway serve the second domain: a document, and a line for each route.
func serveWidgets(t *testing.T) func(*Options) {
	document, err := os.ReadFile(filepath.Join("testdata", "widget.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return func(o *Options) {
		o.document = document
		o.mount = func(s *Server, e *echo.Echo) {
			at := func(method, path string, answered func(ctx context.Context, w ref, c echo.Context) (answer, error)) {
				e.Add(method, path, func(c echo.Context) error {
					a, err := answered(c.Request().Context(), named(widgetResource, c.Param("id")), c)
					if err != nil {
						return err
					}
					return a.write(c.Response())
				})
			}
			at("GET", "/api/widgets", func(ctx context.Context, _ ref, _ echo.Context) (answer, error) {
				return s.list(ctx, widgetResource, nil)
			})
			at("POST", "/api/widgets", func(ctx context.Context, _ ref, c echo.Context) (answer, error) {
				var body widgetMade
				if err := json.Unmarshal(callOf(ctx).body, &body); err != nil {
					return answer{}, err
				}
				return s.create(ctx, widgetResource, func(context.Context) (string, any, error) { return events.AnyNode, body, nil })
			})
			at("GET", "/api/widgets/:id", func(ctx context.Context, w ref, _ echo.Context) (answer, error) { return s.show(ctx, w) })
			at("DELETE", "/api/widgets/:id", func(ctx context.Context, w ref, _ echo.Context) (answer, error) {
				return s.command(ctx, w, "delete", nil)
			})
			at("POST", "/api/widgets/:id/paint", func(ctx context.Context, w ref, c echo.Context) (answer, error) {
				return s.command(ctx, w, "paint", json.RawMessage(callOf(ctx).body))
			})
			at("GET", "/api/widgets/:id/history", func(ctx context.Context, w ref, _ echo.Context) (answer, error) { return s.history(ctx, w) })
			at("POST", "/api/widgets/:id/revert", func(ctx context.Context, w ref, c echo.Context) (answer, error) {
				var body openapi.Revert
				if err := c.Bind(&body); err != nil {
					return answer{}, err
				}
				return s.revert(ctx, w, body.To)
			})
			at("GET", "/api/panic", func(context.Context, ref, echo.Context) (answer, error) { panic("secret") })
		}
	}
}

// caughtUp waits until the read model has everything that is recorded.
func (w *world) caughtUp() {
	w.t.Helper()
	end, err := w.store.End(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	if err := w.model.Wait(ctx, operation.Kind, end); err != nil {
		w.t.Fatal(err)
	}
}

// unwatched waits until the server has noticed that all event streams are closed.
func (w *world) unwatched() {
	w.t.Helper()
	for range cap(w.server.watchers) { // a place is free once its stream has ended
		select {
		case w.server.watchers <- struct{}{}:
			defer func() { <-w.server.watchers }()
		case <-time.After(20 * time.Second):
			w.t.Fatal("an event stream does not end")
		}
	}
}

// response is an answer that has been read.
type response struct {
	t      *testing.T
	Status int
	Header http.Header
	Body   []byte
}

// header pairs of a request.
type header map[string]string

// call sends a request as an administrator, unless a header says otherwise, and holds the answer against the document.
func (w *world) call(method, path, body string, headers ...header) *response {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.http.URL+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer admin")
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		for name, value := range h {
			req.Header.Set(name, value)
		}
	}
	resp, err := w.http.Client().Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	r := &response{w.t, resp.StatusCode, resp.Header, b}
	w.validate(req, r)
	return r
}

func (w *world) get(path string) *response { w.t.Helper(); return w.call("GET", path, "") }

func (w *world) post(path, body string, headers ...header) *response {
	w.t.Helper()
	return w.call("POST", path, body, headers...)
}

// is fails unless the answer has the status.
func (r *response) is(status int) *response {
	r.t.Helper()
	if r.Status != status {
		r.t.Fatalf("status %d, want %d: %s", r.Status, status, r.Body)
	}
	return r
}

// problem fails unless the answer is a problem of the code, naming the fields.
func (r *response) problem(code problem.Code, fields ...string) openapi.Problem {
	r.t.Helper()
	var p openapi.Problem
	if err := json.Unmarshal(r.Body, &p); err != nil || r.Header.Get("Content-Type") != "application/problem+json" {
		r.t.Fatalf("%d %s is no problem: %s", r.Status, r.Header.Get("Content-Type"), r.Body)
	}
	var named []string
	for _, f := range p.Fields {
		named = append(named, f.Field)
	}
	if p.Code != code || r.Status != code.Status() || p.Status != r.Status || p.Trace == nil || !slices.Equal(named, fields) {
		r.t.Errorf("%d %s, want %s of %v", r.Status, r.Body, code, fields)
	}
	return p
}

func into[T any](r *response) (v T) {
	r.t.Helper()
	if err := json.Unmarshal(r.Body, &v); err != nil {
		r.t.Fatalf("%s: %v", r.Body, err)
	}
	return v
}

func (r *response) operation() operation.View { r.t.Helper(); return into[operation.View](r) }

func (r *response) position() string { return r.Header.Get(events.PositionHeader) }

func loadDocument(t *testing.T) *openapi3.T {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(openapi.YAML)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// validate holds an answer against the document: status, headers and body.
func (w *world) validate(req *http.Request, r *response) {
	w.t.Helper()
	path, params := match(w.doc, req.URL.EscapedPath())
	if path == "" {
		return // a path that does not exist, or of the second domain
	}
	op := w.doc.Paths.Find(path).GetOperation(req.Method)
	if op == nil {
		return
	}
	err := openapi3filter.ValidateResponse(req.Context(), (&openapi3filter.ResponseValidationInput{
		RequestValidationInput: &openapi3filter.RequestValidationInput{
			Request: req, PathParams: params, Route: &routers.Route{Spec: w.doc, Path: path, Method: req.Method, Operation: op},
		},
		Status: r.Status, Header: r.Header, Options: &openapi3filter.Options{IncludeResponseStatus: true},
	}).SetBodyBytes(r.Body))
	if err != nil {
		w.t.Errorf("%s %s: the answer is not of the document: %v", req.Method, req.URL, err)
	}
}

// match finds the path of the document that a request means: the one with the fewest parameters.
func match(doc *openapi3.T, path string) (found string, params map[string]string) {
	for candidate := range doc.Paths.Map() {
		pattern := regexp.MustCompile("^" + regexp.MustCompile(`\{[^}]+\}`).ReplaceAllString(candidate, `[^/]+`) + "$")
		if pattern.MatchString(path) && (found == "" || strings.Count(candidate, "{") < strings.Count(found, "{")) {
			found = candidate
		}
	}
	return found, map[string]string{}
}
