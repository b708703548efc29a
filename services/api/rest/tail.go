package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// What a tail keeps of the log's end: enough that a watcher may lag for a moment. The newest page is kept, however
// large it is.
const (
	tailPages = 64
	tailBytes = 8 << 20
)

// logPoll is the poll behind the nudges.
const logPoll = 250 * time.Millisecond

// tail reads the log once for all event streams that have come to its end. It reads while there is one.
type tail struct {
	*Server
	moved func() <-chan struct{} // says that there may be more

	mu    sync.Mutex // held to come and go
	users int
	stop  func()
	kept  atomic.Pointer[stretch]
}

// stretch is what a tail keeps at a moment. It never changes, so that a thousand watchers look at it without waiting
// for one another.
type stretch struct {
	start, end events.Position
	pages      []*logPage
	bytes      int
	grown      chan struct{} // closed when a longer one has taken its place
	err        error         // why it will not grow any more
}

// logPage is a piece of the log in the form of server-sent events, each encoded once.
type logPage struct {
	start, end events.Position
	events     []events.Event // without their data
	ends       []int          // of the messages in text
	text       []byte
}

func newTail(s *Server, moved func() <-chan struct{}) *tail { return &tail{Server: s, moved: moved} }

// enter begins to read behind a position, unless the tail reads already. leave has to be called.
func (t *tail) enter(at events.Position) (leave func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users++; t.users == 1 {
		t.kept.Store(&stretch{start: at, end: at, grown: make(chan struct{})})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() { defer close(done); t.run(ctx) }()
		t.stop = func() { cancel(); <-done }
	}
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.users--; t.users == 0 {
			t.stop()
		}
	}
}

// run reads until ctx ends. A log that does not answer is asked again: a thousand watchers who came back at once would
// not make it any better.
func (t *tail) run(ctx context.Context) {
	poll := time.NewTicker(logPoll)
	defer poll.Stop()
	for failed := false; ; {
		moved := t.moved()
		page, err := t.readLog(ctx, t.kept.Load().end, eventstore.ReadOptions{Limit: eventPage})
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			failed = false
			err = t.grow(page)
		case !errors.Is(err, eventstore.ErrUnknownEra):
			if !failed {
				t.Log.Warn("the log cannot be followed, trying again", "error", err)
			}
			failed, err = true, nil
		}
		if err != nil {
			t.fail(err)
			return
		}
		if page.More {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-moved:
		case <-poll.C:
		}
	}
}

// grow adds a page and drops the oldest that are too many.
func (t *tail) grow(page eventstore.Page) error {
	old := t.kept.Load()
	if page.Next == old.end {
		return nil
	}
	added, err := encodePage(old.end, page)
	if err != nil {
		return err
	}
	s := &stretch{
		start: old.start, end: page.Next, pages: append(slices.Clone(old.pages), added), bytes: old.bytes + len(added.text),
		grown: make(chan struct{}),
	}
	for len(s.pages) > 1 && (len(s.pages) > tailPages || s.bytes > tailBytes) {
		s.start, s.bytes = s.pages[0].end, s.bytes-len(s.pages[0].text)
		s.pages = s.pages[1:]
	}
	t.kept.Store(s)
	close(old.grown)
	return nil
}

// fail tells all watchers that there will be no more.
func (t *tail) fail(err error) {
	old := *t.kept.Load()
	grown := old.grown
	old.grown, old.err = make(chan struct{}), err
	t.kept.Store(&old)
	close(grown)
}

// after returns the first page that has something behind a position, nil if there is none yet. The position must not
// be before the start.
func (s *stretch) after(at events.Position) *logPage {
	i, _ := slices.BinarySearchFunc(s.pages, at, func(p *logPage, at events.Position) int {
		if p.end.Compare(at) <= 0 {
			return -1
		}
		return 1
	})
	if i == len(s.pages) {
		return nil
	}
	return s.pages[i]
}

func encodePage(start events.Position, page eventstore.Page) (*logPage, error) {
	p := &logPage{start: start, end: page.Next, events: page.Events, ends: make([]int, len(page.Events))}
	for i := range p.events {
		e := &p.events[i]
		data, err := json.Marshal(e) // one line
		if err != nil {
			return nil, fmt.Errorf("event %s: %w", e.ID, err)
		}
		p.text = fmt.Appendf(p.text, "id: %s\nevent: %s\ndata: %s\n\n", e.Position, e.Type, data)
		p.ends[i] = len(p.text)
		e.Data = nil
	}
	return p, nil
}

// messages of a page that lie behind a position and belong to what opts asks for.
func (p *logPage) messages(at events.Position, opts eventstore.ReadOptions) []byte {
	if at.Compare(p.start) <= 0 && opts.All() {
		return p.text
	}
	var out []byte
	from := 0
	for i, e := range p.events {
		if e.Position.Compare(at) > 0 && opts.Match(e) {
			out = append(out, p.text[from:p.ends[i]]...)
		}
		from = p.ends[i]
	}
	return out
}
