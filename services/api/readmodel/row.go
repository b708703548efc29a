package readmodel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"horcrux/pkg/events"
)

// Row is an object as the read model has it.
type Row struct {
	ID      uuid.UUID
	Name    string
	Version int64
	Doc     json.RawMessage
	Deleted bool
}

// Find returns the object of a kind by its id, deleted or not, or the living one by its name; nil if there is none.
func (m *Model) Find(ctx context.Context, kind, ref string) (*Row, error) {
	const columns = `SELECT id, name, version, doc, deleted FROM api.views
		WHERE gen = (SELECT gen FROM api.projections WHERE kind = $1) AND `
	query, arg := columns+`name = $2 AND NOT deleted LIMIT 1`, any(ref)
	if id, err := uuid.Parse(ref); err == nil {
		query, arg = columns+`id = $2`, id
	}
	var r Row
	err := m.Pool.QueryRow(ctx, query, kind, arg).Scan(&r.ID, &r.Name, &r.Version, &r.Doc, &r.Deleted)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("find %s: %w", kind, err)
	}
	return &r, nil
}

// view is an object between events and row.
type view struct {
	fold    events.Fold
	id      uuid.UUID
	version int64
	created time.Time
	updated time.Time
	deleted bool
	stored  bool // a row exists; only rebuilds ask
	changed bool
}

// folding holds the views of one projection while events are folded into them.
type folding struct {
	resource *events.Resource
	gen      int64
	views    map[uuid.UUID]*view
	changed  []*view // since rows were last made of them
}

func newFolding(r *events.Resource, gen int64) *folding {
	return &folding{resource: r, gen: gen, views: map[uuid.UUID]*view{}}
}

// load fetches the rows of the streams that are not held yet.
func (f *folding) load(ctx context.Context, db querier, page []events.Event) error {
	var missing []uuid.UUID
	for _, e := range page {
		id := e.Stream.ID()
		if _, held := f.views[id]; !held {
			f.views[id] = nil
			if e.Version > 1 {
				missing = append(missing, id)
			}
		}
	}
	if len(missing) == 0 {
		return nil
	}
	rows, err := db.Query(ctx, `SELECT id, doc, version, created_at, updated_at, deleted FROM api.views
		WHERE gen = $1 AND id = ANY ($2)`, f.gen, missing)
	if err != nil {
		return fmt.Errorf("load views: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var doc json.RawMessage
		v := view{stored: true}
		if err := rows.Scan(&v.id, &doc, &v.version, &v.created, &v.updated, &v.deleted); err != nil {
			return fmt.Errorf("load views: %w", err)
		}
		if v.fold, err = f.resource.Fold(doc); err != nil {
			return fmt.Errorf("view of %s %s: %w", f.resource.Kind, v.id, err)
		}
		f.views[v.id] = &v
	}
	return rows.Err()
}

// apply folds one event. The streams' rows must have been loaded.
func (f *folding) apply(e events.Event) error {
	id := e.Stream.ID()
	v := f.views[id]
	if v == nil {
		fold, err := f.resource.Fold(nil)
		if err != nil {
			return err
		}
		v = &view{fold: fold, id: id, created: e.At}
		f.views[id] = v
	}
	if e.Version != v.version+1 {
		return fmt.Errorf("%s: version %d follows version %d", e.Stream, e.Version, v.version)
	}
	deleted, err := v.fold.Apply(e)
	if err != nil {
		return err
	}
	v.version, v.updated, v.deleted = e.Version, e.At, v.deleted || deleted
	if !v.changed {
		v.changed = true
		f.changed = append(f.changed, v)
	}
	return nil
}

// columns are rows, column by column.
type columns struct {
	gens    []int64
	ids     []uuid.UUID
	kinds   []string
	names   []string
	docs    []string
	attrs   []string
	version []int64
	created []time.Time
	updated []time.Time
	deleted []bool
}

// addChanged adds a row for each view that has a new event.
func (c *columns) addChanged(f *folding) error {
	for _, v := range f.changed {
		if err := c.add(f, v); err != nil {
			return err
		}
		v.changed = false
	}
	f.changed = f.changed[:0]
	return nil
}

func (c *columns) add(f *folding, v *view) error {
	doc, err := v.fold.Doc()
	if err != nil {
		return err
	}
	name, attrs, err := attributes(f.resource, doc)
	if err != nil {
		return fmt.Errorf("attributes of %s %s: %w", f.resource.Kind, v.id, err)
	}
	c.gens, c.ids, c.kinds = append(c.gens, f.gen), append(c.ids, v.id), append(c.kinds, f.resource.Kind)
	c.names, c.docs, c.attrs = append(c.names, name), append(c.docs, string(doc)), append(c.attrs, attrs)
	c.version, c.deleted = append(c.version, v.version), append(c.deleted, v.deleted)
	c.created, c.updated = append(c.created, v.created), append(c.updated, v.updated)
	return nil
}

// writeViews writes rows whether they exist or not; api.project does it by the same function.
const writeViews = `SELECT api.write_views($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

func (c *columns) args() []any {
	return []any{c.gens, c.ids, c.kinds, c.names, c.docs, c.attrs, c.version, c.created, c.updated, c.deleted}
}

// attributes takes the name and what lists filter and sort by out of a document.
func attributes(r *events.Resource, doc json.RawMessage) (name, attrs string, err error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(doc, &fields); err != nil {
		return "", "", err
	}
	if raw, ok := fields["name"]; ok {
		if err := json.Unmarshal(raw, &name); err != nil {
			return "", "", err
		}
	}
	kept := make(map[string]json.RawMessage, len(r.Filters))
	for _, f := range r.Filters {
		kept[f] = json.RawMessage("null")
		if raw, ok := fields[f]; ok {
			kept[f] = raw
		}
	}
	b, err := json.Marshal(kept)
	return name, string(b), err
}
