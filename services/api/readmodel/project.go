package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// querier is what a pool, a connection and a transaction have in common.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// batchSize is how many events one transaction takes at most. It bounds how long the transaction is open, which holds
// back every reader of the log.
const batchSize = 1000

// errOvertaken: another gateway advanced the checkpoint.
var errOvertaken = errors.New("another gateway advanced the checkpoint")

// roundTime bounds what waits for the database while the projections rest: one page, or the end of a rebuild.
const roundTime = 30 * time.Second

// Round says what projecting one page came to.
type Round struct {
	Advanced bool // there was something new
	More     bool // there is more at once
	Held     bool // there will be more once a transaction has ended that is under way elsewhere
}

// RunOnce projects one page for the kinds that are furthest behind, within roundTime.
func (m *Model) RunOnce(ctx context.Context) (Round, error) {
	m.step.Lock()
	defer m.step.Unlock()
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	r, err := m.round(ctx)
	if err == nil {
		m.mu.Lock()
		if m.rounded = m.Clock(); !r.More && !r.Held {
			m.followed = m.rounded
		}
		m.mu.Unlock()
	}
	return r, err
}

func (m *Model) round(ctx context.Context) (Round, error) {
	group, other := m.behind()
	if len(group) == 0 {
		return Round{}, nil
	}
	from := group[0].at
	opts := eventstore.ReadOptions{Limit: batchSize}
	for _, p := range group {
		opts.Kinds = append(opts.Kinds, p.resource.Kind)
	}
	page, err := m.Reader.Read(ctx, from, opts)
	if err != nil {
		return Round{}, fmt.Errorf("read the log: %w", err)
	}
	if page.Next == from {
		return Round{More: other, Held: page.Held}, nil
	}
	err = m.project(ctx, group, page)
	if errors.Is(err, errOvertaken) {
		return Round{Advanced: true, More: true}, m.reload(ctx)
	}
	return Round{Advanced: err == nil, More: page.More || other, Held: page.Held}, err
}

// behind returns the projections that run and are furthest behind, and whether others are elsewhere.
func (m *Model) behind() (group []*projection, other bool) {
	for _, p := range m.projections {
		switch {
		case p.halted != nil:
		case len(group) == 0 || p.at == group[0].at:
			group = append(group, p)
		case p.at.Compare(group[0].at) < 0:
			group, other = []*projection{p}, true
		default:
			other = true
		}
	}
	return group, other
}

// progress is where a projection gets with a page.
type progress struct {
	*projection
	folding *folding
	to      events.Position
	halt    error
}

// project folds a page into the group's rows and moves its checkpoints, in one transaction.
func (m *Model) project(ctx context.Context, group []*projection, page eventstore.Page) (err error) {
	defer func() {
		if err != nil { // what was folded in memory is not what the table has
			for _, p := range group {
				delete(m.foldings, p.resource.Kind)
			}
		}
	}()
	byKind := map[string][]events.Event{}
	for _, e := range page.Events {
		byKind[e.Stream.Kind()] = append(byKind[e.Stream.Kind()], e)
	}
	var rows columns
	steps := make([]*progress, len(group))
	for i, p := range group {
		kind := p.resource.Kind
		if f := m.foldings[kind]; f == nil || len(f.views) > keepViews {
			m.foldings[kind] = newFolding(p.resource, p.gen)
		}
		steps[i] = &progress{projection: p, folding: m.foldings[kind], to: page.Next}
		if err := steps[i].fold(ctx, m.Pool, byKind[kind]); err != nil {
			return err
		}
		if err := rows.addChanged(m.foldings[kind]); err != nil {
			return err
		}
	}
	// Pages without an event of ours move the checkpoint in memory alone, until it is worth a write.
	write := len(rows.ids) > 0 || page.More
	if write {
		if err := m.write(ctx, steps, &rows); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range steps {
		s.at = s.to
		if write {
			s.stored = s.to
		}
		if s.halt != nil {
			s.halted = s.halt
			m.Log.Error("projection halted: it met an event that it cannot fold", "kind", s.resource.Kind,
				"position", s.to.String(), "error", s.halt)
		}
	}
	m.announce(&rows)
	return nil
}

// keepViews is how many views of a kind stay in memory for their next event.
const keepViews = 1000

// fold takes a projection through its events of a page. One that cannot be folded halts it right before.
func (s *progress) fold(ctx context.Context, db querier, page []events.Event) error {
	if err := s.folding.load(ctx, db, page); err != nil {
		return err
	}
	good := s.at
	for _, e := range page {
		if err := s.folding.apply(e); err != nil {
			s.halt, s.to = fmt.Errorf("event %s: %w", e.ID, err), good
			return nil
		}
		good = e.Position
	}
	return nil
}

// write stores rows and checkpoints, unless another gateway was faster, in one round trip.
func (m *Model) write(ctx context.Context, steps []*progress, rows *columns) error {
	var to, from places
	kinds, gens := make([]string, len(steps)), make([]int64, len(steps))
	for i, s := range steps {
		kinds[i], gens[i] = s.resource.Kind, s.gen
		to.add(s.to)
		from.add(s.stored)
	}
	const project = `SELECT api.project($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`
	_, err := m.Pool.Exec(ctx, project, append([]any{
		kinds, gens, to.eras, to.txs, to.seqs, from.eras, from.txs, from.seqs,
	}, rows.args()...)...)
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg) && pg.Code == "HX001":
		return errOvertaken
	case err != nil:
		return fmt.Errorf("write views: %w", err)
	}
	return nil
}

// places are positions, column by column.
type places struct {
	eras      []int16
	txs, seqs []int64
}

func (p *places) add(pos events.Position) {
	p.eras, p.txs, p.seqs = append(p.eras, pos.Era), append(p.txs, int64(pos.Tx)), append(p.seqs, pos.Seq)
}
