// Package rest is the REST transport: the only package that knows echo. Routes, parameters and bodies follow from the
// OpenAPI document; what an object is follows from its events.Resource.
package rest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/openapi"
	"horcrux/services/api/access"
	"horcrux/services/api/console"
	"horcrux/services/api/past"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/strictjson"
	"horcrux/services/api/submit"
)

// Check says why a dependency does not work, nil if it does. It has to answer within its context's deadline.
type Check func(context.Context) error

// Options of New.
type Options struct {
	Submit    *submit.Submitter
	Model     *readmodel.Model
	Store     eventstore.Reader
	Resources []*events.Resource // all kinds that can be asked for by name or cancelled through an operation
	// Authenticate says who sends a request, before the request's context ends. An error means that it cannot be known
	// now.
	Authenticate func(*http.Request) (access.Caller, error)
	Log          *slog.Logger

	DeadLetters DeadLetters
	Usage       Usage
	Ready       map[string]Check // dependencies by name, for /readyz
	// Elsewhere says how the services of other processes do, by the names of their dependencies. Nil for none.
	Elsewhere  func() map[string]error
	Collectors []prometheus.Collector // metrics of others, for /metrics
	Features   []openapi.Feature
	Version    openapi.Version
	ImageDirs  []string // where files that a request names may lie
	// Secrets keeps what must not be recorded.
	Secrets Secrets
	// Node finds a node by id or name; not_found if there is none.
	Node func(ctx context.Context, ref string) (uuid.UUID, error)
	// Watchers is how many event streams may be open at a time; 0 means 2,048. One costs a connection, a goroutine or
	// two and their buffers, 50 kB, but no read of the log once it has come to its end.
	Watchers int
	// Consoles reaches the nodes for the consoles of virtual machines, of which MaxConsoles may be open at a time; 0 means
	// 256.
	Consoles    console.Bus
	MaxConsoles int

	document []byte                    // tests serve another contract,
	mount    func(*Server, *echo.Echo) // with routes of their own
}

// Secrets keeps a secret and says by which id it is named, and tells data that bears one from other data without giving
// it away.
type Secrets interface {
	Seal(ctx context.Context, secret []byte) (uuid.UUID, error)
	Digest(data []byte) ([]byte, error)
}

// Server answers requests. Drain ends what would not end by itself.
type Server struct {
	Options
	contract *contract
	echo     *echo.Echo
	past     past.Reader
	metrics  *metrics
	registry *prometheus.Registry
	docs     []byte
	watchers chan struct{} // a place for each open event stream
	consoles chan struct{} // and for each open console
	tail     *tail         // which they share

	drain    sync.Once
	draining chan struct{}
}

var _ StrictServerInterface = (*Server)(nil)

// New returns a Server. It fails when the OpenAPI document does not hold what the server needs.
func New(o Options) (*Server, error) {
	if o.Watchers == 0 {
		o.Watchers = 2048
	}
	if o.MaxConsoles == 0 {
		o.MaxConsoles = 256
	}
	if o.document == nil {
		o.document = openapi.YAML
		o.mount = func(s *Server, e *echo.Echo) { RegisterHandlers(e, NewStrictHandler(s, nil)) }
	}
	c, err := loadContract(o.document)
	if err != nil {
		return nil, err
	}
	s := &Server{
		Options: o, contract: c, past: past.Reader{Store: o.Store}, registry: prometheus.NewRegistry(),
		watchers: make(chan struct{}, o.Watchers), consoles: make(chan struct{}, o.MaxConsoles), draining: make(chan struct{}),
	}
	s.tail = newTail(s, o.Model.Moved)
	s.metrics = newMetrics(s.registry, o.Model)
	s.registry.MustRegister(o.Collectors...)
	if s.docs, err = renderDocs(c); err != nil {
		return nil, fmt.Errorf("page of the OpenAPI document: %w", err)
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.Binder = binder{}
	e.HTTPErrorHandler = s.fail
	e.Use(s.observe, s.admit)
	o.mount(s, e)
	for _, r := range c.routes {
		if r.planned {
			e.Add(r.method, r.path, notImplemented)
		}
	}
	s.echo = e
	return s, nil
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.echo.ServeHTTP(w, r) }

// Drain ends open event streams, consoles and calls that wait for an operation, which are answered with the operation as
// it is.
func (s *Server) Drain() {
	s.drain.Do(func() {
		s.Submit.Drain()
		close(s.draining)
	})
}

// Drained waits, after Drain, for the consoles to end: an http.Server does not know of connections that are no longer its
// own.
func (s *Server) Drained() {
	for range cap(s.consoles) { // a place is free once its console has ended
		s.consoles <- struct{}{}
	}
}

// binder reads bodies that admit has checked.
type binder struct{}

func (binder) Bind(v any, c echo.Context) error {
	data := callOf(c.Request().Context()).body
	if data == nil {
		return io.EOF // an optional body that was left out
	}
	return strictjson.Decode(data, v)
}
