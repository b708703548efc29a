// Package storage is the service that keeps the pools and volumes of a node: it decides the commands to volumes and
// brings about what was decided.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	poolwire "horcrux/pkg/events/pool"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/dir"
	"horcrux/services/storage/backend/traced"
	"horcrux/services/storage/image"
	"horcrux/services/storage/pool"
	"horcrux/services/storage/volume"
)

// Domain is the service's name in subjects.
const Domain = "storage"

// LocalName is the name of the pool that every node has from its first start, LocalType its type.
const (
	LocalName = "local"
	LocalType = "dir"
)

// LocalID is the id of a node's pool local.
func LocalID(node uuid.UUID) uuid.UUID { return events.DerivedID(poolwire.Kind, node, LocalName) }

// Options of the service.
type Options struct {
	Node  uuid.UUID
	Store eventstore.Store
	Bus   engine.Bus
	// LocalPath is the directory of the pool local. Its parent exists. Absolute.
	LocalPath string
	// ImageDirs are where images may lie. Absolute paths.
	ImageDirs []string
	// Drivers by type of pool; nil: all that are built in.
	Drivers map[string]backend.Driver
	Log     *slog.Logger
	Metrics *engine.Metrics  // nil counts for nobody
	Clock   func() time.Time // nil: time.Now
}

// Service runs until its context ends.
type Service struct {
	Options
	images  image.Library
	engine  *engine.Engine
	pools   *engine.Kind[pool.Pool]
	volumes *engine.Kind[volume.Volume]
	// down says why the pool local cannot be used, nil while it can.
	down atomic.Pointer[error]
	// look asks for a look at the pool local before its time.
	look chan struct{}
	// orphans says that the storage may hold volumes whose create has failed.
	orphans atomic.Bool
}

// New returns a service that does nothing before Run.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	s := &Service{Options: o, images: image.Library{Dirs: o.ImageDirs}, look: make(chan struct{}, 1)}
	if s.Drivers == nil {
		s.Drivers = map[string]backend.Driver{LocalType: dir.Driver{Images: s.images}}
	}
	s.engine = engine.New(engine.Options{Domain: Domain, Node: o.Node, Store: o.Store, Bus: o.Bus, Log: o.Log, Metrics: o.Metrics, Clock: o.Clock})
	s.pools = &engine.Kind[pool.Pool]{Codec: poolwire.Codec, Decider: pool.Decider, Intent: pool.Intent, Names: pool.Names}
	s.volumes = s.volumeKind()
	engine.Register(s.engine, s.pools)
	engine.Register(s.engine, s.volumes)
	s.orphans.Store(true) // whoever ran before may have left some
	down := error(problem.New(problem.StorageUnavailable, "the pool %s has not been looked at yet", LocalName))
	s.down.Store(&down)
	return s
}

// Run keeps the pool local and serves commands until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { s.keepLocal(ctx) })
	defer wg.Wait()
	defer cancel()
	return s.engine.Run(ctx)
}

// Ready is nil while the pool local can be used.
func (s *Service) Ready(context.Context) error {
	if err := s.down.Load(); err != nil {
		return *err
	}
	return nil
}

// errNoPool says that a pool does not exist or is not on this node.
var errNoPool = errors.New("no such pool on this node")

// pool loads a pool of this node.
func (s *Service) pool(ctx context.Context, id uuid.UUID) (pool.Pool, error) {
	h, err := s.Store.Load(ctx, events.NewStream(poolwire.Kind, id))
	if err != nil {
		return pool.Pool{}, err
	}
	p, err := pool.Decider.Fold(poolwire.Codec, h[0])
	if err == nil && (!p.Exists || p.Node != s.Node) {
		err = fmt.Errorf("pool %s: %w", id, errNoPool)
	}
	return p, err
}

// open returns the backend of a pool.
func (s *Service) open(id uuid.UUID, p pool.Pool) (backend.Backend, error) {
	d, ok := s.Drivers[p.Type]
	if !ok {
		return nil, fmt.Errorf("%w: pool of type %q", backend.ErrUnsupported, p.Type)
	}
	b, err := d.Open(backend.Pool{ID: id, Path: p.Path, Options: p.Options})
	if err != nil {
		return nil, err
	}
	return traced.Backend(b), nil
}
