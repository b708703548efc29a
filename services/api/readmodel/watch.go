package readmodel

import (
	"context"
	"encoding/json"

	"github.com/google/uuid"
)

// Watch follows one object from the moment it was made.
type Watch struct {
	m    *Model
	kind string
	id   uuid.UUID
	w    *watcher
}

// watcher is what all watches of one object share. Its fields are under the model's mu.
type watcher struct {
	changed chan struct{} // closed and replaced by each change
	row     *Row          // as the last change left it, nil while that is not known here
	waiting int
}

// Watch begins to follow an object, which need not exist yet. Close ends it.
func (m *Model) Watch(kind string, id uuid.UUID) *Watch {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watchers[id]
	if w == nil {
		w = &watcher{changed: make(chan struct{})}
		m.watchers[id] = w
	}
	w.waiting++
	return &Watch{m, kind, id, w}
}

// Close ends the watch.
func (w *Watch) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.w.waiting--; w.w.waiting == 0 {
		delete(w.m.watchers, w.id)
	}
}

// Until returns the row of the object as soon as done says so, or the latest when ctx ends (nil if there is none yet).
// fresh says that nothing had happened to the object when the watch began: then what is not known here has not been.
func (w *Watch) Until(ctx context.Context, fresh bool, done func(*Row) bool) (*Row, error) {
	for {
		row, changed := w.now()
		if row == nil && !fresh {
			var err error
			if row, err = w.find(ctx); err != nil {
				return nil, err
			}
		}
		if row != nil && done(row) {
			return row, nil
		}
		select {
		case <-changed:
			fresh = false // a change by another gateway leaves no row here
		case <-ctx.Done():
			return w.find(ctx)
		}
	}
}

func (w *Watch) now() (*Row, <-chan struct{}) {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.w.row, w.w.changed
}

// find finds the row also when ctx has ended.
func (w *Watch) find(ctx context.Context) (*Row, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), queryTime)
	defer cancel()
	return w.m.Find(ctx, w.kind, w.id.String())
}

// WaitUntil is Until on an object that may have changed before.
func (m *Model) WaitUntil(ctx context.Context, kind string, id uuid.UUID, done func(*Row) bool) (*Row, error) {
	w := m.Watch(kind, id)
	defer w.Close()
	return w.Until(ctx, false, done)
}

// announce wakes whoever waits: for a position, and for the objects whose rows were written; all of them if it is not
// known which those are. It is called under mu.
func (m *Model) announce(written *columns) {
	close(m.moved)
	m.moved = make(chan struct{})
	if written == nil {
		for _, w := range m.watchers {
			w.change(nil)
		}
		return
	}
	for i, id := range written.ids {
		if w := m.watchers[id]; w != nil {
			w.change(&Row{
				ID: id, Name: written.names[i], Version: written.version[i], Doc: json.RawMessage(written.docs[i]), Deleted: written.deleted[i],
			})
		}
	}
}

func (w *watcher) change(row *Row) {
	w.row = row
	close(w.changed)
	w.changed = make(chan struct{})
}
