package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
)

// countedLog is a log in memory that counts how often it is read, and can fail.
type countedLog struct {
	*memory.Store
	reads  atomic.Int64
	broken atomic.Pointer[error]
}

func (l *countedLog) Read(ctx context.Context, after events.Position, o eventstore.ReadOptions) (eventstore.Page, error) {
	l.reads.Add(1)
	if err := l.broken.Load(); err != nil {
		return eventstore.Page{}, *err
	}
	return l.Store.Read(ctx, after, o)
}

// tailed is a server that knows nothing but a log and how to follow it.
type tailed struct {
	t        *testing.T
	log      countedLog
	server   *Server
	stream   events.Stream
	head     eventstore.Head
	recorded []string // positions
}

func newTailed(t *testing.T) *tailed {
	t.Helper()
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	l := &tailed{t: t, log: countedLog{Store: memory.New(nil)}, stream: events.NewStream("widget", events.NewID())}
	l.server = &Server{Options: Options{Store: &l.log, Log: slog.New(slog.DiscardHandler)}, draining: make(chan struct{})}
	l.server.tail = newTail(l.server, l.log.Nudged)
	return l
}

// record appends an event of a type and returns its position.
func (l *tailed) record(kind string, data string) string {
	l.t.Helper()
	r, err := l.log.Append(l.t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{{
		Stream: l.stream, Head: l.head, Events: []events.Draft{{Type: kind, Schema: 1, Data: []byte(data)}},
	}}})
	if err != nil {
		l.t.Fatal(err)
	}
	e := r.Events[0]
	l.head = eventstore.Head{Version: e.Version, Hash: e.Hash, At: e.At}
	l.recorded = append(l.recorded, e.Position.String())
	return e.Position.String()
}

// watched is what a follower wrote. It takes nothing while its gate is held.
type watched struct {
	gate sync.Mutex
	more chan struct{} // has a value after one or more writes

	mu  sync.Mutex
	ids []string // of the messages that were written

	cancel func()
	ended  chan error // what the follower ended with
}

func (w *watched) Header() http.Header              { return http.Header{} }
func (w *watched) WriteHeader(int)                  {}
func (w *watched) SetWriteDeadline(time.Time) error { return nil }
func (w *watched) Flush()                           {}

func (w *watched) Write(b []byte) (int, error) {
	w.gate.Lock()
	defer w.gate.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			w.ids = append(w.ids, strings.TrimSpace(id))
		}
	}
	select {
	case w.more <- struct{}{}:
	default:
	}
	return len(b), nil
}

func (w *watched) got() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.ids)
}

// end waits until the follower has ended.
func (w *watched) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-w.ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the follower does not end")
		return nil
	}
}

// reaches waits until a message with an id was written.
func (w *watched) reaches(t *testing.T, id string) {
	t.Helper()
	late := time.After(time.Minute)
	for !slices.Contains(w.got(), id) {
		select {
		case <-w.more:
		case <-late:
			t.Fatalf("%s did not come; last came %v", id, w.got())
		}
	}
}

// watch follows the log from its beginning.
func (l *tailed) watch(opts eventstore.ReadOptions) *watched {
	l.t.Helper()
	ctx, cancel := context.WithCancel(l.t.Context())
	w := &watched{more: make(chan struct{}, 1), cancel: cancel, ended: make(chan error, 1)}
	opts.Limit = eventPage
	page, err := l.server.readLog(ctx, events.Position{}, opts)
	if err != nil {
		l.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		f := follower{Server: l.server, w: w, control: http.NewResponseController(w), opts: opts}
		w.ended <- f.run(ctx, page)
	})
	l.t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func TestTail(t *testing.T) {
	t.Run("ReadsOnceForAll", func(t *testing.T) {
		l := newTailed(t)
		first := l.record("widget.made", `{}`)
		watchers := make([]*watched, 100)
		for i := range watchers {
			watchers[i] = l.watch(eventstore.ReadOptions{})
		}
		for _, w := range watchers {
			w.reaches(t, first)
		}
		l.record("widget.painted", `{}`)
		for _, w := range watchers { // all of them are at the end
			w.reaches(t, l.recorded[1])
		}
		before, begun := l.log.reads.Load(), time.Now()
		for range 20 {
			last := l.record("widget.painted", `{}`)
			for _, w := range watchers {
				w.reaches(t, last)
			}
		}
		most := 2*20 + int64(time.Since(begun)/logPoll)
		if n := l.log.reads.Load() - before; n > most {
			t.Errorf("%d reads of 20 events for %d watchers, want at most %d", n, len(watchers), most)
		}
		for _, w := range watchers {
			if got := w.got(); !slices.Equal(got, l.recorded) {
				t.Fatalf("got %v, want %v", got, l.recorded)
			}
		}
	})
	t.Run("FiltersForEach", func(t *testing.T) {
		l := newTailed(t)
		all := l.watch(eventstore.ReadOptions{})
		made := l.watch(eventstore.ReadOptions{Types: []string{"widget.m*"}})
		other := l.watch(eventstore.ReadOptions{Stream: "widget/other"})
		var want []string
		for i := range 50 {
			kind := []string{"widget.made", "widget.painted", "widget.moved"}[i%3]
			id := l.record(kind, `{}`)
			if all.reaches(t, id); kind != "widget.painted" {
				want = append(want, id)
			}
		}
		made.reaches(t, want[len(want)-1])
		if got := made.got(); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := other.got(); len(got) != 0 {
			t.Errorf("got %v of another stream", got)
		}
	})
	t.Run("WhoFallsBehindMissesNothing", func(t *testing.T) {
		for name, data := range map[string]string{"Pages": `{}`, "Bytes": `{"text":"` + strings.Repeat("x", tailBytes/8) + `"}`} {
			t.Run(name, func(t *testing.T) {
				l := newTailed(t)
				quick := l.watch(eventstore.ReadOptions{})
				slow := l.watch(eventstore.ReadOptions{})
				picky := l.watch(eventstore.ReadOptions{Types: []string{"widget.odd"}})
				var odd []string
				record := func(i int) {
					kind := []string{"widget.even", "widget.odd"}[i%2]
					id := l.record(kind, data)
					if quick.reaches(t, id); i%2 == 1 {
						odd = append(odd, id)
					}
				}
				slow.reaches(t, func() string { record(0); return l.recorded[0] }())
				slow.gate.Lock()
				picky.gate.Lock()
				n := tailPages + 10
				if name == "Bytes" {
					n = 20
				}
				for i := range n {
					record(i)
				}
				if kept := l.server.tail.kept.Load(); len(kept.pages) > tailPages || kept.bytes > tailBytes {
					t.Errorf("keeps %d pages of %d bytes", len(kept.pages), kept.bytes)
				} else if kept.start.String() == "" || !slices.Contains(l.recorded[2:], kept.start.String()) {
					t.Errorf("has dropped nothing that the slow one needs: begins at %q", kept.start)
				}
				slow.gate.Unlock()
				picky.gate.Unlock()
				for i := range 20 { // while they catch up
					record(i)
				}
				slow.reaches(t, l.recorded[len(l.recorded)-1])
				picky.reaches(t, odd[len(odd)-1])
				if got := slow.got(); !slices.Equal(got, l.recorded) {
					t.Errorf("got %d events, want %d", len(got), len(l.recorded))
				}
				if got := picky.got(); !slices.Equal(got, odd) {
					t.Errorf("got %d odd events, want %d", len(got), len(odd))
				}
			})
		}
	})
	t.Run("LogThatDoesNotAnswer", func(t *testing.T) {
		l := newTailed(t)
		w := l.watch(eventstore.ReadOptions{})
		w.reaches(t, l.record("widget.made", `{}`))
		down := errors.New("down")
		l.log.broken.Store(&down)
		id := l.record("widget.painted", `{}`)
		before := l.log.reads.Load()
		for deadline := time.Now().Add(time.Minute); l.log.reads.Load() < before+2; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the log is not asked again")
			}
		}
		l.log.broken.Store(nil)
		w.reaches(t, id)
		w.cancel()
		if err := w.end(t); err != nil {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("AnotherLog", func(t *testing.T) {
		l := newTailed(t)
		w := l.watch(eventstore.ReadOptions{})
		w.reaches(t, l.record("widget.made", `{}`))
		gone := fmt.Errorf("read: %w", eventstore.ErrUnknownEra)
		l.log.broken.Store(&gone)
		if err := w.end(t); !errors.Is(err, eventstore.ErrUnknownEra) {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("Drains", func(t *testing.T) {
		l := newTailed(t)
		var watchers []*watched
		for range 10 {
			watchers = append(watchers, l.watch(eventstore.ReadOptions{}))
		}
		id := l.record("widget.made", `{}`)
		for _, w := range watchers {
			w.reaches(t, id)
		}
		close(l.server.draining)
		for _, w := range watchers {
			if err := w.end(t); err != nil {
				t.Errorf("ended with %v", err)
			}
		}
		if l.server.tail.users != 0 {
			t.Errorf("%d watchers are left", l.server.tail.users)
		}
	})
}
