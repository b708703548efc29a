// Package watch hands what a hypervisor reports to everybody who watches it. A publisher never waits: what a slow
// watcher has not taken yet is merged, one change for each domain, so that its queue is bounded by the number of
// domains and always holds the last change of each.
package watch

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// Hub is a source of changes. The zero value is not usable.
type Hub struct {
	done chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	watchers map[*watcher]struct{}
}

// New returns an open hub.
func New() *Hub {
	return &Hub{done: make(chan struct{}), watchers: map[*watcher]struct{}{}}
}

// Publish hands a change to every watcher, without waiting for any.
func (h *Hub) Publish(c hypervisor.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.put(c)
	}
}

// Watch returns what is published from now on, until ctx ends or the hub is closed; then the channel is closed.
func (h *Hub) Watch(ctx context.Context) <-chan hypervisor.Change {
	w := &watcher{pending: map[uuid.UUID]hypervisor.Change{}, wake: make(chan struct{}, 1)}
	out := make(chan hypervisor.Change)

	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(out)
		return out
	}
	h.watchers[w] = struct{}{}
	h.wg.Go(func() {
		defer close(out)
		defer h.forget(w)
		w.pump(ctx, h.done, out)
	})
	return out
}

// Close ends every watch and waits for it.
func (h *Hub) Close() {
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.done)
	}
	h.mu.Unlock()
	h.wg.Wait()
}

func (h *Hub) forget(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

type watcher struct {
	wake chan struct{} // holds one token while something is pending

	mu      sync.Mutex
	pending map[uuid.UUID]hypervisor.Change
	order   []uuid.UUID // keys of pending, oldest first
}

func (w *watcher) put(c hypervisor.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.pending[c.ID]; !ok {
		w.order = append(w.order, c.ID)
	}
	w.pending[c.ID] = c
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watcher) take() (hypervisor.Change, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.order) == 0 {
		return hypervisor.Change{}, false
	}
	id := w.order[0]
	w.order = w.order[1:]
	c := w.pending[id]
	delete(w.pending, id)
	return c, true
}

func (w *watcher) pump(ctx context.Context, done <-chan struct{}, out chan<- hypervisor.Change) {
	for {
		c, ok := w.take()
		if !ok {
			select {
			case <-w.wake:
				continue
			case <-ctx.Done():
				return
			case <-done:
				return
			}
		}
		select {
		case out <- c:
		case <-ctx.Done():
			return
		case <-done:
			return
		}
	}
}
