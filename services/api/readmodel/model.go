// Package readmodel keeps what REST lists and shows: for each kind of object a row per object with its view, the pure
// fold of the object's stream. It tails the event store and writes rows and checkpoint in one transaction, so that
// each event counts once. Several gateways may keep the same tables: whoever is first advances the checkpoint, the
// others take it over.
package readmodel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

var (
	// ErrHalted: the projection of a kind met an event that it cannot fold and stands still.
	ErrHalted = errors.New("projection halted")
	// ErrBehind: the read model did not get to a position in time.
	ErrBehind = errors.New("read model has not got there yet")
)

// Options of Open. All but Wake and Clock are needed.
type Options struct {
	Pool      *pgxpool.Pool
	Reader    eventstore.Reader
	Resources []*events.Resource
	// Wake says that something was appended. A poll every 250 ms stands behind it.
	Wake  <-chan struct{}
	Log   *slog.Logger
	Clock func() time.Time // nil: time.Now
}

// Model is the read model of all kinds. Run keeps it up to date; everything else may be called by many goroutines.
type Model struct {
	Options

	step     sync.Mutex          // held while rows are written; before mu
	foldings map[string]*folding // by kind, views lately folded; under step

	mu          sync.Mutex
	projections []*projection
	rounded     time.Time     // when RunOnce last came to its end
	followed    time.Time     // when it last came to the end of the log
	moved       chan struct{} // closed and replaced whenever something changed
	watchers    map[uuid.UUID]*watcher
}

// projection is where one kind stands. Its fields are written under step and mu, and read under either.
type projection struct {
	resource *events.Resource
	gen      int64
	at       events.Position
	stored   events.Position // at, as the table has it
	halted   error
}

// Open migrates the tables and takes up each kind where it was left.
func Open(ctx context.Context, o Options) (*Model, error) {
	if err := Migrate(ctx, o.Pool); err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	m := &Model{
		Options: o, rounded: o.Clock(), followed: o.Clock(), moved: make(chan struct{}), watchers: map[uuid.UUID]*watcher{}, foldings: map[string]*folding{},
	}
	for _, r := range o.Resources {
		const enter = `INSERT INTO api.projections (kind, gen) VALUES ($1, nextval('api.generation')) ON CONFLICT DO NOTHING`
		if _, err := o.Pool.Exec(ctx, enter, r.Kind); err != nil {
			return nil, fmt.Errorf("enter projection of %s: %w", r.Kind, err)
		}
		m.projections = append(m.projections, &projection{resource: r})
	}
	return m, m.reload(ctx)
}

// checkpoint is where the table says that a projection is.
type checkpoint struct {
	kind string
	gen  int64
	at   events.Position
}

// reload takes over the checkpoints of the table. It is called under step, or before anybody else knows m.
func (m *Model) reload(ctx context.Context) error {
	rows, err := m.Pool.Query(ctx, `SELECT kind, gen, era, tx, seq FROM api.projections`)
	if err != nil {
		return fmt.Errorf("read checkpoints: %w", err)
	}
	stored, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c checkpoint, err error) {
		var tx int64
		err = row.Scan(&c.kind, &c.gen, &c.at.Era, &tx, &c.at.Seq)
		c.at.Tx = uint64(tx)
		return c, err
	})
	if err != nil {
		return fmt.Errorf("read checkpoints: %w", err)
	}
	m.mu.Lock() // only now: whoever asks for the status does not wait for the database
	defer m.mu.Unlock()
	for _, c := range stored {
		i := m.index(c.kind)
		if i < 0 {
			continue
		}
		p := m.projections[i]
		// A checkpoint behind ours says that the database crashed and lost our last commits.
		if c.at.Compare(p.stored) < 0 || c.at.Compare(p.at) > 0 {
			p.at = c.at
		}
		p.gen, p.stored = c.gen, c.at
		delete(m.foldings, c.kind)
	}
	m.announce(nil)
	return nil
}

func (m *Model) index(kind string) int {
	return slices.IndexFunc(m.projections, func(p *projection) bool { return p.resource.Kind == kind })
}

// Moved is closed when the read model next advances.
func (m *Model) Moved() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moved
}

// state of a kind, and the channel that says that it may have changed.
func (m *Model) state(kind string) (projection, <-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.index(kind)
	if i < 0 {
		return projection{}, nil, fmt.Errorf("no projection of %q", kind)
	}
	return *m.projections[i], m.moved, nil
}

// Position is where the projection of a kind stands; zero for a kind without one.
func (m *Model) Position(kind string) events.Position {
	p, _, _ := m.state(kind)
	return p.at
}

// Wait returns when the projection of a kind has got to a position. It fails with ErrHalted, with
// eventstore.ErrUnknownEra for a position of another log, and with ErrBehind when ctx ends first.
func (m *Model) Wait(ctx context.Context, kind string, pos events.Position) error {
	if m.Position(kind).Compare(pos) < 0 {
		_, err := m.Reader.Read(ctx, pos, eventstore.ReadOptions{Limit: 1})
		switch {
		case err != nil && ctx.Err() != nil:
			return fmt.Errorf("%w: %w", ErrBehind, context.Cause(ctx))
		case err != nil:
			return err
		}
	}
	return m.Reach(ctx, kind, pos)
}

// Reach is Wait for a position that is known to be of this log.
func (m *Model) Reach(ctx context.Context, kind string, pos events.Position) error {
	for {
		p, moved, err := m.state(kind)
		switch {
		case err != nil:
			return err
		case p.at.Compare(pos) >= 0:
			return nil
		case p.halted != nil:
			return fmt.Errorf("%w: %s", ErrHalted, kind)
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBehind, context.Cause(ctx))
		}
	}
}

// Status of a projection, for /readyz and the metrics.
type Status struct {
	Kind     string
	Position events.Position
	Halted   error // nil while it runs
	// Stalled is for how long nothing could be projected, because the database or the log did not answer. While all is
	// well it is less than a second.
	Stalled time.Duration
	// Lag is since when the projections have not been at the end of the log, also because a transaction elsewhere holds
	// events back: whatever was recorded before is in their rows.
	Lag time.Duration
}

// Status of every projection.
func (m *Model) Status() []Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Status, len(m.projections))
	for i, p := range m.projections {
		all[i] = Status{
			Kind: p.resource.Kind, Position: p.at, Halted: p.halted, Stalled: m.Clock().Sub(m.rounded), Lag: m.Clock().Sub(m.followed),
		}
	}
	return all
}

// The poll behind the nudges. An event that is held back by another transaction, whose end nobody announces, is looked
// for again soon, then ever more rarely.
const (
	shortPoll = 500 * time.Microsecond
	longPoll  = 250 * time.Millisecond
)

// Run keeps the read model up to date until ctx ends. Failures of the database are logged and tried again.
func (m *Model) Run(ctx context.Context) error {
	poll := shortPoll
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.Wake:
			poll = shortPoll
		case <-timer.C:
			poll = min(2*poll, longPoll)
		}
		for more := true; more; {
			r, err := m.RunOnce(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				m.Log.Error("projecting failed, trying again", "error", err)
				poll = longPoll
			case !r.Held:
				poll = longPoll
			case r.Advanced:
				poll = shortPoll
			}
			more = r.More && err == nil
		}
		timer.Reset(poll)
	}
}

// RunToEnd projects everything that the log has now.
func (m *Model) RunToEnd(ctx context.Context) error {
	for {
		r, err := m.RunOnce(ctx)
		if err != nil || (!r.Advanced && !r.More) {
			return err
		}
	}
}
