// Package storetest is the conformance suite of eventstore.Store: each sentence of the contract is a case. An
// implementation passes it by calling Run from its tests.
package storetest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// Open returns a new, empty store that uses a clock, and has it closed when the test ends.
type Open func(t *testing.T, clock func() time.Time) eventstore.Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	groups := []struct {
		name  string
		cases map[string]func(*testing.T, *fixture)
	}{
		{"Append", appendCases},
		{"Outcome", outcomeCases},
		{"Names", nameCases},
		{"Locked", lockedCases},
		{"Read", readCases},
		{"Commands", commandCases},
		{"Requests", requestCases},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) {
			for name, run := range g.cases {
				t.Run(name, func(t *testing.T) {
					c := &clock{now: time.Date(2026, 3, 1, 12, 0, 0, 123_456_000, time.UTC)}
					run(t, &fixture{Store: open(t, c.Now), clock: c})
				})
			}
		})
	}
}

// clock stands still until it is told.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// fixture is a store and the clock that it uses.
type fixture struct {
	eventstore.Store
	clock *clock
	last  events.Position // of the events that append appended
}

// newStream names a stream that does not exist.
func newStream(kind string) events.Stream { return events.NewStream(kind, uuid.New()) }

// drafts makes an event of each type.
func drafts(types ...string) []events.Draft {
	out := make([]events.Draft, len(types))
	for i, t := range types {
		out[i] = events.Draft{Type: t, Schema: 1, Data: json.RawMessage(`{"n":1}`)}
	}
	return out
}

// to appends events of types to a stream as it was loaded.
func to(s events.Stream, head eventstore.Head, types ...string) eventstore.StreamAppend {
	return eventstore.StreamAppend{Stream: s, Head: head, Events: drafts(types...)}
}

func one(sa eventstore.StreamAppend) eventstore.Append {
	return eventstore.Append{Streams: []eventstore.StreamAppend{sa}}
}

// append appends and has to succeed.
func (f *fixture) append(t *testing.T, a eventstore.Append) eventstore.Result {
	t.Helper()
	r, err := f.Append(t.Context(), a)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	if !r.Duplicate && r.Outcome.Position.Compare(f.last) > 0 {
		f.last = r.Outcome.Position
	}
	return r
}

// add appends events of types to the end of a stream.
func (f *fixture) add(t *testing.T, s events.Stream, types ...string) eventstore.Result {
	t.Helper()
	return f.append(t, one(to(s, f.head(t, s), types...)))
}

func (f *fixture) load(t *testing.T, streams ...events.Stream) []eventstore.History {
	t.Helper()
	h, err := f.Load(t.Context(), streams...)
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return h
}

func (f *fixture) head(t *testing.T, s events.Stream) eventstore.Head {
	t.Helper()
	return f.load(t, s)[0].Head
}

// settle waits until readers may see what was appended: something else in the same server, such as its own upkeep,
// may hold them back for a moment.
func (f *fixture) settle(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); f.end(t).Compare(f.last) < 0; {
		if time.Now().After(deadline) {
			t.Fatalf("readers do not get to %v", f.last)
		}
	}
}

func (f *fixture) end(t *testing.T) events.Position {
	t.Helper()
	p, err := f.End(t.Context())
	if err != nil {
		t.Fatalf("end: %v", err)
	}
	return p
}

func (f *fixture) read(t *testing.T, after events.Position, opts eventstore.ReadOptions) eventstore.Page {
	t.Helper()
	f.settle(t)
	p, err := f.Read(t.Context(), after, opts)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return p
}

func (f *fixture) due(t *testing.T, at time.Time) []eventstore.Undecided {
	t.Helper()
	u, err := f.Due(t.Context(), at, 100)
	if err != nil {
		t.Fatalf("due: %v", err)
	}
	return u
}

func (f *fixture) outcome(t *testing.T, command uuid.UUID) *eventstore.Outcome {
	t.Helper()
	o, err := f.Outcome(t.Context(), command)
	if err != nil {
		t.Fatalf("outcome: %v", err)
	}
	return o
}

func types(es []events.Event) []string {
	out := []string{}
	for _, e := range es {
		out = append(out, e.Type)
	}
	return out
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// sameEvent compares two events, their data and the times by meaning.
func sameEvent(t *testing.T, got, want events.Event) {
	t.Helper()
	sameJSON(t, "data", got.Data, want.Data)
	if !got.At.Equal(want.At) || !bytes.Equal(got.Hash, want.Hash) || !bytes.Equal(got.PrevHash, want.PrevHash) {
		t.Errorf("got at %v, chained %x to %x; want at %v, chained %x to %x",
			got.At, got.PrevHash, got.Hash, want.At, want.PrevHash, want.Hash)
	}
	got.Data, got.At, got.Hash, got.PrevHash = want.Data, want.At, want.Hash, want.PrevHash
	equal(t, "event", got, want)
}

func sameJSON(t *testing.T, what string, got, want []byte) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal(got, &g); err != nil {
		t.Errorf("%s: %v in %q", what, err, got)
	}
	if err := json.Unmarshal(want, &w); err != nil {
		t.Errorf("%s: %v in %q", what, err, want)
	}
	equal(t, what, g, w)
}
