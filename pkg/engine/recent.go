package engine

import (
	"context"
	"sync"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// recent remembers histories that this engine has just appended to, so that the next decision need not load them. What
// it says may be out of date. Every append compares the heads of all that was decided from, also where it adds nothing to
// them; and what is not known for sure, since an answer of the store was lost, is forgotten.
type recent struct {
	mu sync.Mutex
	m  map[events.Stream]eventstore.History
}

// The bounds of what is remembered: how many streams, and how long a stream may be.
const (
	recentStreams = 256
	recentEvents  = 64
)

// put remembers a history, unless a later one is known.
func (r *recent) put(h eventstore.History) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case h.Head.Version <= r.m[h.Stream].Head.Version:
		return
	case len(h.Events) > recentEvents:
		delete(r.m, h.Stream)
		return
	case len(r.m) >= recentStreams:
		for s := range r.m { // any one
			delete(r.m, s)
			break
		}
	}
	r.m[h.Stream] = h
}

// forget makes the next decision load streams.
func (r *recent) forget(streams ...events.Stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range streams {
		delete(r.m, s)
	}
}

// history is what is remembered of a stream.
func (r *recent) history(s events.Stream) (eventstore.History, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h, ok := r.m[s]
	return h, ok
}

// histories of streams: as remembered, as told, and the others as loaded.
func (e *Engine) histories(ctx context.Context, streams []events.Stream, told ...eventstore.History) ([]eventstore.History, error) {
	out := make([]eventstore.History, len(streams))
	var missing []events.Stream
	var at []int
next:
	for i, s := range streams {
		if h, ok := e.recent.history(s); ok {
			out[i] = h
			continue
		}
		for _, h := range told {
			if h.Stream == s {
				out[i] = h
				continue next
			}
		}
		missing, at = append(missing, s), append(at, i)
	}
	if len(missing) == 0 {
		return out, nil
	}
	loaded, err := e.Store.Load(ctx, missing...)
	if err != nil {
		return nil, err
	}
	for n, i := range at {
		out[i] = loaded[n]
	}
	return out, nil
}
