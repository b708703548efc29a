package usage

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/problem"
	wire "horcrux/pkg/usage"
)

const (
	fresh    = time.Second      // how old an answer may be besides the time that the look took
	lateTime = 3 * time.Second  // after which the hypervisor is asked once more, or three times as long as the last look took
	lateMost = 15 * time.Second // if that is less
	patience = 9 * time.Second  // how long a look may keep those waiting who can have a recent one; less than a node's answer may take
	recent   = time.Minute
	lookTime = 55 * time.Second // bounds one look
	share    = 4                // looks that nobody asked for take this part of the time at most
	rarest   = time.Minute      // between them, however long they take
)

// look is what was seen at one moment. It does not change once it is made.
type look struct {
	at      time.Time
	took    time.Duration
	node    wire.Node
	domains map[uuid.UUID]*Domain
	ids     []uuid.UUID // of the domains, in order
}

// CallTime is how long a driver's call should take at most, so that none is under way any more when the next look begins.
const CallTime = lookTime - 5*time.Second

// flight is a look that is under way, for all who wait for it.
type flight struct {
	begin time.Time
	done  chan struct{}
	look  *look
	err   error
}

// Sampler looks every period, and when somebody asks.
type Sampler struct {
	driver Driver
	host   Host
	log    *slog.Logger
	clock  func() time.Time

	mu     sync.Mutex
	life   context.Context // of Run; nil before and after it
	looks  sync.WaitGroup
	last   *look
	flying *flight
	histories
}

// histories of the last hour. The rates in them are since the recorded look before, whoever asked in between.
type histories struct {
	recorded *look
	node     ring
	domains  map[uuid.UUID]*ring
}

// New returns a sampler that looks from Run on.
func New(driver Driver, host Host, log *slog.Logger, clock func() time.Time) *Sampler {
	return &Sampler{driver: driver, host: host, log: log, clock: clock, histories: histories{domains: map[uuid.UUID]*ring{}}}
}

// Run looks until ctx ends.
func (s *Sampler) Run(ctx context.Context) {
	s.mu.Lock()
	s.life = ctx
	s.mu.Unlock()
	defer s.looks.Wait()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.life = nil
	}()
	failed := false
	for {
		begin := s.clock()
		l, err := s.look(ctx)
		pause := period
		if err == nil {
			pause = l.pause()
		}
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			s.record(l)
		case !failed:
			s.log.Warn("what guests use is not known; it is looked at again", "err", err)
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause - s.clock().Sub(begin)):
		}
	}
}

// look returns a look that is fresh, or waits for one, or returns one that is recent where that takes too long. However
// many wait, one look is under way.
func (s *Sampler) look(ctx context.Context) (*look, error) {
	s.mu.Lock()
	last := s.last
	if last != nil && s.clock().Sub(last.at) < min(fresh+2*last.took, recent) {
		defer s.mu.Unlock()
		return last, nil
	}
	f := s.flying
	if f == nil {
		if s.life == nil {
			s.mu.Unlock()
			return nil, unavailable()
		}
		f = &flight{begin: s.clock(), done: make(chan struct{})}
		s.flying = f
		life := s.life
		s.looks.Go(func() { s.fly(life, f) })
	}
	s.mu.Unlock()
	late := time.NewTimer(patience - s.clock().Sub(f.begin))
	defer late.Stop()
	for {
		select {
		case <-f.done:
			return f.look, f.err
		case <-late.C:
			if last != nil && s.clock().Sub(last.at) < recent {
				return last, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func unavailable() *problem.Problem {
	return problem.New(problem.HypervisorUnavailable, "the hypervisor of the node does not answer")
}

// fly looks, for all who wait.
func (s *Sampler) fly(ctx context.Context, f *flight) {
	l := &look{at: s.clock(), domains: map[uuid.UUID]*Domain{}}
	l.node = s.host.Usage(l.at.UTC().Truncate(time.Millisecond))
	s.mu.Lock()
	late := lateTime
	if s.last != nil {
		late = max(late, min(3*s.last.took, lateMost))
	}
	s.mu.Unlock()
	domains, err := s.observe(ctx, late)
	s.mu.Lock()
	defer s.mu.Unlock()
	l.took = s.clock().Sub(l.at)
	if f.err = err; err == nil {
		for i := range domains {
			d := &domains[i]
			d.settle(l.at)
			l.domains[d.ID] = d
		}
		l.ids = slices.SortedFunc(maps.Keys(l.domains), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) })
		l.since(s.last)
		f.look, s.last = l, l
	}
	s.flying = nil
	close(f.done)
}

// observe asks the hypervisor, and once more where its answer is late: an emulator that hangs holds up the first call
// that meets it, and only that. The first answer counts.
func (s *Sampler) observe(ctx context.Context, after time.Duration) ([]Domain, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	type answer struct {
		domains []Domain
		err     error
	}
	answered := make(chan answer, 2)
	ask := func() {
		s.looks.Go(func() {
			domains, err := s.driver.Usage(ctx)
			answered <- answer{domains, err}
		})
	}
	ask()
	late := time.NewTimer(after)
	defer late.Stop()
	for {
		select {
		case a := <-answered:
			return a.domains, a.err
		case <-late.C:
			ask()
		}
	}
}

// pause is from the begin of the look to that of the next that nobody asks for.
func (l *look) pause() time.Duration { return max(period, min(share*l.took, rarest)) }

// since fills in the rates.
func (l *look) since(before *look) {
	if before == nil {
		return
	}
	passed := l.at.Sub(before.at)
	compareNode(&l.node, before.node, passed)
	for id, d := range l.domains {
		if b := before.domains[id]; b != nil {
			d.compare(*b, passed)
		}
	}
}

// copy of a look, to fill in other rates.
func (l *look) copy() *look {
	c := &look{at: l.at, took: l.took, node: l.node, domains: make(map[uuid.UUID]*Domain, len(l.domains))}
	for id, d := range l.domains {
		own := *d
		own.Disks, own.NICs = slices.Clone(d.Disks), slices.Clone(d.NICs)
		c.domains[id] = &own
	}
	return c
}

// record puts a look into the histories. Those of domains that are gone go.
func (s *Sampler) record(l *look) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.recorded == l {
		return
	}
	own := l.copy() // others read l
	own.since(s.recorded)
	s.recorded = l
	s.node.add(nodePoint(own.node))
	for id, d := range own.domains {
		r := s.domains[id]
		if r == nil {
			r = &ring{}
			s.domains[id] = r
		}
		r.add(d.point(l.at))
	}
	maps.DeleteFunc(s.domains, func(id uuid.UUID, _ *ring) bool { return l.domains[id] == nil })
}
