package readmodel

import "github.com/google/uuid"

// Watch follows one object from the moment it was made.
type Watch struct {
	m  *Model
	id uuid.UUID
	w  *watcher
}

// watcher is what all watches of one object share. Its fields are under the model's mu.
type watcher struct {
	changed chan struct{} // closed and replaced by each change
	waiting int
}

// Watch begins to follow an object, which need not exist yet. Close ends it.
func (m *Model) Watch(id uuid.UUID) *Watch {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := m.watchers[id]
	if w == nil {
		w = &watcher{changed: make(chan struct{})}
		m.watchers[id] = w
	}
	w.waiting++
	return &Watch{m, id, w}
}

// Changed is closed when the row of the object next changes.
func (w *Watch) Changed() <-chan struct{} {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	return w.w.changed
}

// Close ends the watch.
func (w *Watch) Close() {
	w.m.mu.Lock()
	defer w.m.mu.Unlock()
	if w.w.waiting--; w.w.waiting == 0 {
		delete(w.m.watchers, w.id)
	}
}

// announce wakes whoever waits: for a position, and for the objects whose rows were written; all of them if it is not
// known which those are. It is called under mu.
func (m *Model) announce(written *columns) {
	close(m.moved)
	m.moved = make(chan struct{})
	if written == nil {
		for _, w := range m.watchers {
			w.change()
		}
		return
	}
	for _, id := range written.ids {
		if w := m.watchers[id]; w != nil {
			w.change()
		}
	}
}

func (w *watcher) change() {
	close(w.changed)
	w.changed = make(chan struct{})
}
