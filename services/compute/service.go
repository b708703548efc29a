// Package compute is the service that drives the hypervisors of a node: it decides the commands to virtual machines
// and brings about what was decided.
package compute

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/engine"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
	"horcrux/services/compute/network/host"
	"horcrux/services/compute/usage"
	"horcrux/services/compute/vm"
)

// Domain is the service's name in subjects.
const Domain = "compute"

// Options of the service.
type Options struct {
	Node   uuid.UUID
	Store  eventstore.Store
	Bus    Bus
	Driver hypervisor.Driver
	// Secrets are named by what is recorded.
	Secrets Secrets
	// Usage tells what guests use; nil: nobody is told. It may hang where the driver must not: it has a connection of its
	// own.
	Usage usage.Driver
	// Networks keeps the networks that guests are on.
	Networks network.Driver
	// Host looks at the node's interfaces and addresses; nil: host.Look.
	Host func() (network.Host, error)
	// Accelerator is how guests run here.
	Accelerator hypervisor.Accelerator
	// ImageDirs are where kernels, initrds, ISOs and images may lie. Absolute paths.
	ImageDirs []string
	Log       *slog.Logger
	Metrics   *engine.Metrics  // nil counts for nobody
	Clock     func() time.Time // nil: time.Now
	Resync    time.Duration    // how often all machines are looked at; 0: 30 s
}

// Bus is what the service needs of the bus.
type Bus interface {
	engine.Bus
	usage.Bus
}

// Service runs until its context ends.
type Service struct {
	Options
	sampler  *usage.Sampler // nil without a Usage
	resyncs  prometheus.Summary
	engine   *engine.Engine
	machines *engine.Kind[vm.Machine]

	networkKinds *engine.Kind[network.Network]
	netTurn      chan struct{} // holds a token while networks are changed at the hypervisor
	// down says why the hypervisor does not answer, nil while it does.
	down atomic.Pointer[error]
}

// New returns a service that does nothing before Run.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Resync == 0 {
		o.Resync = 30 * time.Second
	}
	if o.Host == nil {
		o.Host = host.Look
	}
	s := &Service{Options: o, netTurn: make(chan struct{}, 1), resyncs: prometheus.NewSummary(prometheus.SummaryOpts{
		Name: "horcrux_resync_seconds", Help: "How long it took to look at all virtual machines of the node.",
	})}
	down := error(problem.New(problem.HypervisorUnavailable, "the hypervisor has not been looked at yet"))
	s.down.Store(&down)
	s.engine = engine.New(engine.Options{Domain: Domain, Node: o.Node, Store: o.Store, Bus: o.Bus, Log: o.Log, Metrics: o.Metrics, Clock: o.Clock})
	if o.Usage != nil {
		s.sampler = usage.New(o.Usage, "/", o.Log, o.Clock)
	}
	s.machines = s.kind()
	engine.Register(s.engine, s.machines)
	s.networkKinds = s.networkKind()
	engine.Register(s.engine, s.networkKinds)
	return s
}

// Run serves commands and watches the hypervisor until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := s.newKeeper()
	k.look(ctx) // before guests start that are to be on them
	var wg sync.WaitGroup
	wg.Go(func() { k.keep(ctx) })
	wg.Go(func() { s.watch(ctx) })
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		if err := s.serveUnmanaged(ctx); err != nil {
			s.Log.Error("nobody is told which guests others made", "err", err)
		}
	})
	if s.sampler != nil {
		wg.Go(func() { s.sampler.Run(ctx) })
		wg.Go(func() {
			if err := s.sampler.Serve(ctx, s.Bus, Domain, s.Node); err != nil {
				s.Log.Error("nobody is told what guests use", "err", err)
			}
		})
	}
	return s.engine.Run(ctx)
}

// Collectors of metrics.
func (s *Service) Collectors() []prometheus.Collector {
	all := []prometheus.Collector{s.resyncs}
	if s.sampler != nil {
		all = append(all, s.sampler.Collector(s.Node))
	}
	return all
}

// Ready is nil while the hypervisor answers.
func (s *Service) Ready(context.Context) error {
	if err := s.down.Load(); err != nil {
		return *err
	}
	return nil
}
