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

	"horcrux/pkg/engine"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/vm"
)

// Domain is the service's name in subjects.
const Domain = "compute"

// Options of the service.
type Options struct {
	Node   uuid.UUID
	Store  eventstore.Store
	Bus    engine.Bus
	Driver hypervisor.Driver
	// Accelerator is how guests run here.
	Accelerator hypervisor.Accelerator
	// ImageDirs are where kernels, initrds, ISOs and images may lie. Absolute paths.
	ImageDirs []string
	Log       *slog.Logger
	Metrics   *engine.Metrics  // nil counts for nobody
	Clock     func() time.Time // nil: time.Now
	Resync    time.Duration    // how often all machines are looked at; 0: 30 s
}

// Service runs until its context ends.
type Service struct {
	Options
	engine   *engine.Engine
	machines *engine.Kind[vm.Machine]
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
	s := &Service{Options: o}
	down := error(problem.New(problem.HypervisorUnavailable, "the hypervisor has not been looked at yet"))
	s.down.Store(&down)
	s.engine = engine.New(engine.Options{Domain: Domain, Node: o.Node, Store: o.Store, Bus: o.Bus, Log: o.Log, Metrics: o.Metrics, Clock: o.Clock})
	s.machines = s.kind()
	engine.Register(s.engine, s.machines)
	return s
}

// Run serves commands and watches the hypervisor until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(ctx) })
	defer wg.Wait()
	defer cancel()
	return s.engine.Run(ctx)
}

// Ready is nil while the hypervisor answers.
func (s *Service) Ready(context.Context) error {
	if err := s.down.Load(); err != nil {
		return *err
	}
	return nil
}
