// Package api is the gateway: it turns REST calls into commands and answers from read models. Service is all of it as
// one thing to start and stop.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/events"
	"horcrux/pkg/events/network"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/openapi"
	"horcrux/services/api/access"
	"horcrux/services/api/console"
	"horcrux/services/api/deadletter"
	"horcrux/services/api/listen"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/rest"
	"horcrux/services/api/submit"
	"horcrux/services/api/telemetry"
)

// Resources are the kinds of objects that the gateway serves, operations aside. A new domain is added here, in the
// OpenAPI document, and with one method for each of its routes in package rest.
var Resources = []*events.Resource{&vm.Resource, &network.Resource, &pool.Resource, &volume.Resource}

// Bus is what the gateway needs of the bus.
type Bus interface {
	submit.Bus
	deadletter.Bus
	console.Bus
	telemetry.Bus
}

// Options of New.
type Options struct {
	Store   deadletter.Store
	Bus     Bus
	Wake    <-chan struct{} // something was appended
	Pool    *pgxpool.Pool   // for the gateway's own tables
	DataDir string          // for the first token and the certificates
	Socket  string          // path of the Unix socket
	// Listen is the TLS address, "[::]:8006"; "" listens on the Unix socket alone. Without the ssl flag it must be "".
	Listen string
	// Names are host names and addresses for the certificate, besides the host's own and localhost.
	Names []string
	Log   *slog.Logger

	Ready      map[string]rest.Check   // dependencies by name; the read models are added
	Elsewhere  func() map[string]error // how the services of other processes do
	Collectors []prometheus.Collector  // metrics of others, for /metrics
	Features   []openapi.Feature
	Version    openapi.Version
	ImageDirs  []string
	Secrets    rest.Secrets
	Deadline   time.Duration // of an operation; 0: 10 min
	// Node finds a node by id or name; a not_found problem if there is none.
	Node func(ctx context.Context, ref string) (uuid.UUID, error)
	// Nodes are those with a compute service, also where it fell silent.
	Nodes func() []telemetry.Node
}

// Service is the gateway. It is bound to its addresses from New on, and serves while Run runs.
type Service struct {
	Options
	model     *readmodel.Model
	submit    *submit.Submitter
	server    *rest.Server
	socket    net.Listener
	tls       net.Listener // nil for none
	tokenFile string
}

// New migrates the gateway's tables, makes the first token and the certificates, and binds the listeners. What it
// fails with says how to mend it.
func New(ctx context.Context, o Options) (_ *Service, err error) {
	s := &Service{Options: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeListeners())
		}
	}()
	if err := s.bind(); err != nil {
		return nil, err
	}
	if s.model, err = readmodel.Open(ctx, readmodel.Options{
		Pool: o.Pool, Reader: o.Store, Resources: append([]*events.Resource{submit.Operations}, Resources...), Wake: o.Wake, Log: o.Log,
	}); err != nil {
		return nil, err
	}
	tokens := access.Tokens{Pool: o.Pool}
	if s.tokenFile, err = tokens.EnsureAdmin(ctx, o.DataDir); err != nil {
		return nil, err
	}
	s.submit = submit.New(submit.Options{Store: o.Store, Bus: o.Bus, Model: s.model, Log: o.Log, Deadline: o.Deadline})
	end, err := o.Store.End(ctx)
	if err != nil {
		return nil, err
	}
	s.submit.Tell(end) // by the process before
	s.server, err = rest.New(rest.Options{
		Submit: s.submit, Model: s.model, Store: o.Store, Resources: Resources, Authenticate: tokens.Authenticate, Log: o.Log,
		Consoles:    o.Bus,
		DeadLetters: deadletter.Office{Bus: o.Bus, Store: o.Store, Clock: time.Now},
		Usage:       telemetry.Reader{Bus: o.Bus, Nodes: o.Nodes, Log: o.Log},
		Ready:       o.Ready, Elsewhere: o.Elsewhere, Collectors: o.Collectors, Features: o.Features, Version: o.Version, ImageDirs: o.ImageDirs, Secrets: o.Secrets, Node: o.Node,
	})
	return s, err
}

// bind opens the doors, so that a place that is taken ends the start.
func (s *Service) bind() (err error) {
	if s.socket, err = listen.Unix(s.Socket); err != nil {
		return err
	}
	if s.Listen == "" {
		return nil
	}
	if !listen.TLSBuilt {
		return fmt.Errorf("listen on %s: this binary was built without ssl; build it with USE=ssl, or set no --listen", s.Listen)
	}
	tcp, err := listen.TCP(s.Listen)
	if err != nil {
		return err
	}
	s.tls = tcp
	certificates, err := listen.OpenCertificates(s.DataDir, s.hostNames(), nil)
	if err != nil {
		return err
	}
	s.tls = listen.TLS(tcp, certificates)
	return nil
}

func (s *Service) hostNames() []string {
	names := append([]string{"localhost", "127.0.0.1", "::1"}, s.Names...)
	if host, err := os.Hostname(); err == nil && host != "" {
		names = append(names, host)
	}
	return names
}

func (s *Service) closeListeners() error {
	var errs []error
	for _, l := range []net.Listener{s.socket, s.tls} {
		if l != nil {
			errs = append(errs, l.Close())
		}
	}
	return errors.Join(errs...)
}

// Addresses are where the gateway listens, as a person would type them.
func (s *Service) Addresses() []string {
	out := []string{"unix://" + s.socket.Addr().String()}
	if s.tls != nil {
		out = append(out, "https://"+s.tls.Addr().String())
	}
	return out
}

// TokenFile is where the first administrator's token is.
func (s *Service) TokenFile() string { return s.tokenFile }

// Rebuild folds a kind's read model anew.
func (s *Service) Rebuild(ctx context.Context, kind string, report func(readmodel.Progress)) error {
	return s.model.Rebuild(ctx, kind, report)
}

// drainTime is how long calls under way may take when the gateway ends.
const drainTime = 10 * time.Second

// Run serves until ctx ends, then lets the calls under way come to their answers. The read models follow the log to
// the last of them.
func (s *Service) Run(ctx context.Context) error {
	projecting, stop := context.WithCancel(context.WithoutCancel(ctx))
	projected := make(chan error, 1)
	go func() { projected <- s.model.Run(projecting) }()
	err := s.serve(ctx)
	stop()
	return errors.Join(err, <-projected)
}

func (s *Service) serve(ctx context.Context) error {
	server := &http.Server{
		Handler: s.server, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug), ConnContext: access.Peer,
	}
	var listeners []net.Listener
	for _, l := range []net.Listener{s.socket, s.tls} {
		if l != nil {
			listeners = append(listeners, l)
		}
	}
	served := make(chan error, len(listeners))
	for _, l := range listeners {
		go func() { served <- server.Serve(l) }()
	}
	var errs []error
	open := len(listeners)
	select {
	case <-ctx.Done():
	case err := <-served: // a listener broke
		open--
		errs = append(errs, fmt.Errorf("serve: %w", err))
	}
	s.server.Drain()
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTime)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		errs = append(errs, fmt.Errorf("calls under way were cut off: %w", err), server.Close())
	}
	s.server.Drained()
	for range open {
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, fmt.Errorf("serve: %w", err))
		}
	}
	return errors.Join(errs...)
}
