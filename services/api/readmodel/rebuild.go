package readmodel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// ErrRebuilding: somebody rebuilds the projection of this kind already.
var ErrRebuilding = errors.New("projection is being rebuilt already")

// Bounds of a rebuild. A transaction that holds back readers of the log takes some 30 ms for flushRows rows.
const (
	flushRows   = 1000
	rebuildPage = 10_000
	// heldViews bounds the memory: past it the views are written, and loaded again when an event needs them.
	heldViews = 50_000
)

// Progress of a rebuild.
type Progress struct {
	Events int64
	Views  int
	Done   bool
}

// Rebuild folds all events of a kind anew, beside the rows that are live, and then puts the new ones in their place.
// Readers see the one or the other. It also mends a projection that halted, where the new program knows the event.
// report, which may be nil, is called after each page.
func (m *Model) Rebuild(ctx context.Context, kind string, report func(Progress)) error {
	p, _, err := m.state(kind)
	if err != nil {
		return err
	}
	conn, err := m.Pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("rebuild %s: %w", kind, err)
	}
	defer conn.Release()
	var locked bool
	if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, rebuildLock, kind).Scan(&locked); err != nil {
		return fmt.Errorf("rebuild %s: %w", kind, err)
	}
	if !locked {
		return ErrRebuilding
	}
	r := rebuild{m: m, kind: kind, report: report}
	err = r.run(ctx, conn.Conn(), p.resource)
	// Whichever generation is not live goes: the old one, or this one after a failure, or one that a crash left.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err = errors.Join(err, m.dropGenerations(cleanup, conn.Conn(), kind))
	_, unlockErr := conn.Exec(cleanup, `SELECT pg_advisory_unlock($1, hashtext($2))`, rebuildLock, kind)
	if err = errors.Join(err, unlockErr); err != nil {
		return fmt.Errorf("rebuild %s: %w", kind, err)
	}
	return nil
}

const rebuildLock = int32(0x68780002)

// rebuild is a rebuild under way.
type rebuild struct {
	m       *Model
	kind    string
	report  func(Progress)
	folding *folding
	at      events.Position
	done    Progress
}

func (r *rebuild) run(ctx context.Context, conn *pgx.Conn, resource *events.Resource) error {
	if err := r.m.dropGenerations(ctx, conn, r.kind); err != nil {
		return err
	}
	var gen int64
	if err := conn.QueryRow(ctx, `SELECT nextval('api.generation')`).Scan(&gen); err != nil {
		return err
	}
	r.folding = newFolding(resource, gen)
	if err := r.tail(ctx, conn); err != nil {
		return err
	}
	r.m.step.Lock() // the live projections rest while the last events are folded and the generations change places
	defer r.m.step.Unlock()
	ctx, cancel := context.WithTimeout(ctx, roundTime)
	defer cancel()
	if err := r.tail(ctx, conn); err != nil {
		return err
	}
	return r.swap(ctx, conn)
}

// fetched is a page of the log, or why there is none.
type fetched struct {
	page eventstore.Page
	err  error
}

// tail folds everything from r.at to the end of the log, and writes it. The next page is read while one is folded.
func (r *rebuild) tail(ctx context.Context, conn *pgx.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	pages := make(chan fetched, 1)
	go r.fetch(ctx, r.at, pages)
	defer func() {
		cancel()
		for range pages { // until fetch has ended
		}
	}()
	for f := range pages {
		if f.err != nil {
			return f.err
		}
		if err := r.folding.load(ctx, conn, f.page.Events); err != nil {
			return err
		}
		for _, e := range f.page.Events {
			if err := r.folding.apply(e); err != nil {
				return fmt.Errorf("event %s: %w", e.ID, err)
			}
		}
		r.at = f.page.Next
		r.done.Events += int64(len(f.page.Events))
		r.done.Views = len(r.folding.views)
		if len(r.folding.views) > heldViews {
			if err := r.flush(ctx, conn); err != nil {
				return err
			}
			r.folding = newFolding(r.folding.resource, r.folding.gen)
		}
		if r.report != nil {
			r.report(r.done)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return r.flush(ctx, conn)
}

// fetch sends the pages of the log after a position, and closes the channel at its end.
func (r *rebuild) fetch(ctx context.Context, at events.Position, pages chan<- fetched) {
	defer close(pages)
	for {
		page, err := r.m.Reader.Read(ctx, at, eventstore.ReadOptions{Kinds: []string{r.kind}, Limit: rebuildPage})
		if err == nil && page.Next == at {
			return
		}
		select {
		case pages <- fetched{page, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
		at = page.Next
	}
}

// flush writes the changed views, in short transactions.
func (r *rebuild) flush(ctx context.Context, conn *pgx.Conn) error {
	var fresh, known columns
	for _, v := range r.folding.changed {
		target := &fresh
		if v.stored {
			target = &known
		}
		if err := target.add(r.folding, v); err != nil {
			return err
		}
		v.changed, v.stored = false, true
		if len(target.ids) == flushRows {
			if err := r.write(ctx, conn, target, target == &fresh); err != nil {
				return err
			}
			*target = columns{}
		}
	}
	r.folding.changed = r.folding.changed[:0]
	return errors.Join(r.write(ctx, conn, &fresh, true), r.write(ctx, conn, &known, false))
}

func (r *rebuild) write(ctx context.Context, conn *pgx.Conn, c *columns, fresh bool) (err error) {
	switch {
	case len(c.ids) == 0:
	case fresh:
		_, err = conn.CopyFrom(ctx, pgx.Identifier{"api", "views"}, []string{
			"gen", "id", "kind", "name", "doc", "attrs",
			"version", "created_at", "updated_at", "deleted",
		}, pgx.CopyFromSlice(len(c.ids), c.row))
	default:
		_, err = conn.Exec(ctx, writeViews, c.args()...)
	}
	return err
}

func (c *columns) row(i int) ([]any, error) {
	return []any{
		c.gens[i], c.ids[i], c.kinds[i], c.names[i], c.docs[i], c.attrs[i], c.version[i], c.created[i],
		c.updated[i], c.deleted[i],
	}, nil
}

// swap makes the new generation the live one.
func (r *rebuild) swap(ctx context.Context, conn *pgx.Conn) error {
	const statement = `UPDATE api.projections SET gen = $2, era = $3, tx = $4, seq = $5 WHERE kind = $1`
	if _, err := conn.Exec(ctx, statement, r.kind, r.folding.gen, r.at.Era, int64(r.at.Tx), r.at.Seq); err != nil {
		return err
	}
	r.m.mu.Lock()
	defer r.m.mu.Unlock()
	p := r.m.projections[r.m.index(r.kind)]
	p.gen, p.at, p.stored, p.halted = r.folding.gen, r.at, r.at, nil
	delete(r.m.foldings, r.kind)
	r.m.announce(nil)
	r.done.Done = true
	if r.report != nil {
		r.report(r.done)
	}
	return nil
}

// dropGenerations deletes the rows of a kind that are not live, in short transactions.
func (m *Model) dropGenerations(ctx context.Context, conn *pgx.Conn, kind string) error {
	const statement = `DELETE FROM api.views WHERE (gen, id) IN (SELECT gen, id FROM api.views
		WHERE kind = $1 AND gen <> (SELECT gen FROM api.projections WHERE kind = $1) LIMIT 10000)`
	for {
		tag, err := conn.Exec(ctx, statement, kind)
		if err != nil {
			return fmt.Errorf("drop the rows that are not live: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
	}
}
