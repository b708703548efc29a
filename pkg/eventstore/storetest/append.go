package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/chain"
)

var appendCases = map[string]func(*testing.T, *fixture){
	"recorded as returned": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		a := one(eventstore.StreamAppend{Stream: s, Events: []events.Draft{
			{Type: "vm.created", Schema: 3, Data: json.RawMessage(`{ "b": [1, 2.50, "ü\u001f"], "a": null }`)},
			{Type: "vm.started", Schema: 1, Data: json.RawMessage(`{}`)},
		}})
		a.Meta = events.Meta{Actor: "uid:0", Auth: "peer", Reason: "a \"reason\"", Correlation: uuid.New(), Node: uuid.New()}
		r := f.append(t, a)
		h := f.load(t, s)[0]
		equal(t, "events", len(h.Events), 2)
		equal(t, "events returned", len(r.Events), 2)
		for i, e := range h.Events {
			sameEvent(t, e, r.Events[i])
			sameJSON(t, "data", e.Data, a.Streams[0].Events[i].Data)
			equal(t, "stream", e.Stream, s)
			equal(t, "version", e.Version, int64(i+1))
			equal(t, "type", e.Type, a.Streams[0].Events[i].Type)
			equal(t, "schema", e.Schema, a.Streams[0].Events[i].Schema)
			equal(t, "meta", e.Meta, a.Meta)
		}
		equal(t, "position of the outcome", r.Outcome.Position, h.Events[1].Position)
		equal(t, "duplicate", r.Duplicate, false)
		equal(t, "head", h.Head.Version, int64(2))
	},
	"ids are UUIDv7 without a command": func(t *testing.T, f *fixture) {
		equal(t, "version", f.add(t, newStream("vm"), "vm.created").Events[0].ID.Version(), uuid.Version(7))
	},
	"ids follow from the command and the index over the whole append": func(t *testing.T, f *fixture) {
		command := uuid.New()
		r := f.append(t, eventstore.Append{Command: command, Streams: []eventstore.StreamAppend{
			to(newStream("vm"), eventstore.Head{}, "vm.created", "vm.started"),
			to(newStream("operation"), eventstore.Head{}, "operation.succeeded"),
		}})
		for i, e := range r.Events {
			equal(t, fmt.Sprint("id ", i), e.ID, events.DerivedID(command, i))
		}
	},
	"missing stream has a zero head": func(t *testing.T, f *fixture) {
		equal(t, "head", f.head(t, newStream("vm")), eventstore.Head{})
	},
	"load keeps the order asked": func(t *testing.T, f *fixture) {
		a, b, missing := newStream("vm"), newStream("vm"), newStream("vm")
		f.add(t, a, "vm.created")
		f.add(t, b, "vm.created", "vm.started")
		for _, order := range [][]events.Stream{{a, missing, b}, {b, a}, {a, b, a}} {
			for i, h := range f.load(t, order...) {
				want := map[events.Stream]int{a: 1, b: 2}[order[i]]
				equal(t, "stream", h.Stream, order[i])
				equal(t, "events", len(h.Events), want)
				equal(t, "head", h.Head.Version, int64(want))
			}
		}
	},
	"first append at a wrong version": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		_, err := f.Append(t.Context(), one(to(s, eventstore.Head{Version: 7, Hash: make([]byte, 32)}, "vm.started")))
		wantErr(t, err, eventstore.ErrWrongVersion)
		equal(t, "head", f.head(t, s), eventstore.Head{})
	},
	"second first append": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.add(t, s, "vm.created")
		_, err := f.Append(t.Context(), one(to(s, eventstore.Head{}, "vm.created")))
		wantErr(t, err, eventstore.ErrWrongVersion)
		equal(t, "version", f.head(t, s).Version, int64(1))
	},
	"stream moved": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.add(t, s, "vm.created")
		old := f.head(t, s)
		f.add(t, s, "vm.started")
		_, err := f.Append(t.Context(), one(to(s, old, "vm.stopped")))
		wantErr(t, err, eventstore.ErrWrongVersion)
		equal(t, "version", f.head(t, s).Version, int64(2))
	},
	"head of another history": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.add(t, s, "vm.created")
		forged := f.head(t, s)
		forged.Hash = make([]byte, 32)
		_, err := f.Append(t.Context(), one(to(s, forged, "vm.started")))
		wantErr(t, err, eventstore.ErrWrongVersion)
	},
	"stream that is only compared": func(t *testing.T, f *fixture) {
		compared, other := newStream("vm"), newStream("operation")
		before := f.head(t, compared)
		f.append(t, eventstore.Append{Streams: []eventstore.StreamAppend{
			{Stream: compared, Head: before}, to(other, eventstore.Head{}, "operation.requested"),
		}})
		f.add(t, compared, "vm.created")
		after := f.head(t, compared)
		f.append(t, eventstore.Append{Streams: []eventstore.StreamAppend{
			{Stream: compared, Head: after}, to(other, f.head(t, other), "operation.started"),
		}})
		for _, stale := range []eventstore.Head{before, {Version: 2, Hash: after.Hash}} {
			_, err := f.Append(t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{
				{Stream: compared, Head: stale}, to(other, f.head(t, other), "operation.succeeded"),
			}})
			wantErr(t, err, eventstore.ErrWrongVersion)
		}
		equal(t, "version", f.head(t, other).Version, int64(2))
		equal(t, "compared", f.head(t, compared), after)
	},
	"several streams are one append": func(t *testing.T, f *fixture) {
		vm, op := newStream("vm"), newStream("operation")
		f.add(t, op, "operation.requested")
		_, err := f.Append(t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{
			to(vm, eventstore.Head{}, "vm.created"), to(op, eventstore.Head{}, "operation.started"),
		}})
		wantErr(t, err, eventstore.ErrWrongVersion)
		equal(t, "head", f.head(t, vm), eventstore.Head{})
		r := f.append(t, eventstore.Append{Streams: []eventstore.StreamAppend{
			to(vm, eventstore.Head{}, "vm.created"), to(op, f.head(t, op), "operation.started"),
		}})
		equal(t, "types", types(r.Events), []string{"vm.created", "operation.started"})
		equal(t, "one transaction", r.Events[0].Position.Tx, r.Events[1].Position.Tx)
	},
	"events are chained": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.add(t, s, "vm.created", "vm.started")
		f.add(t, s, "vm.stopped")
		h := f.load(t, s)[0]
		var prev []byte
		for _, e := range h.Events {
			data, err := chain.Canonical(e.Data)
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.Marshal(e.Meta)
			if err != nil {
				t.Fatal(err)
			}
			meta, err := chain.Canonical(raw)
			if err != nil {
				t.Fatal(err)
			}
			hash := chain.Sum(prev, chain.Record{
				Stream: s, Version: e.Version, ID: e.ID, Type: e.Type, Schema: e.Schema, At: e.At, Data: data, Meta: meta,
			})
			equal(t, "hash", e.Hash, hash)
			prev = hash
		}
		equal(t, "head", h.Head.Hash, prev)
	},
	"time does not go back within a stream": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.clock.add(time.Hour)
		later := f.add(t, s, "vm.created").Events[0].At
		f.clock.add(-time.Hour)
		equal(t, "at", f.add(t, s, "vm.started").Events[0].At, later)
		equal(t, "at of another stream", f.add(t, newStream("vm"), "vm.created").Events[0].At, f.clock.Now())
		f.clock.add(2 * time.Hour)
		equal(t, "at", f.add(t, s, "vm.stopped").Events[0].At, f.clock.Now())
	},
	"microseconds": func(t *testing.T, f *fixture) {
		f.clock.add(789 * time.Nanosecond)
		s := newStream("vm")
		r := f.add(t, s, "vm.created")
		equal(t, "at", r.Events[0].At, f.clock.Now().Truncate(time.Microsecond))
		equal(t, "location", r.Events[0].At.Location(), time.UTC)
		sameEvent(t, f.load(t, s)[0].Events[0], r.Events[0])
	},
	"refused": func(t *testing.T, f *fixture) {
		draft := func(data string) []events.Draft {
			return []events.Draft{{Type: "vm.created", Schema: 1, Data: json.RawMessage(data)}}
		}
		s := newStream("vm")
		for name, a := range map[string]eventstore.Append{
			"U+0000":         one(eventstore.StreamAppend{Stream: s, Events: draft(`{"a":["\\\u0000"]}`)}),
			"U+0000 in meta": {Meta: events.Meta{Reason: "\x00"}, Streams: []eventstore.StreamAppend{to(s, eventstore.Head{}, "vm.created")}},
			"no JSON":        one(eventstore.StreamAppend{Stream: s, Events: draft(`{`)}),
			"no data":        one(eventstore.StreamAppend{Stream: s, Events: draft(``)}),
			"duplicate key":  one(eventstore.StreamAppend{Stream: s, Events: draft(`{"a":1,"a":2}`)}),
			"big integer":    one(eventstore.StreamAppend{Stream: s, Events: draft(`[9007199254740993]`)}),
			"huge number":    one(eventstore.StreamAppend{Stream: s, Events: draft(`1e400`)}),
			"invalid UTF-8":  one(eventstore.StreamAppend{Stream: s, Events: draft("\"\xff\"")}),
			"no stream":      one(to("", eventstore.Head{}, "vm.created")),
			"no type":        one(to(s, eventstore.Head{}, "")),
			"a stream twice": {Streams: []eventstore.StreamAppend{to(s, eventstore.Head{}, "vm.created"), {Stream: s}}},
		} {
			_, err := f.Append(t.Context(), a)
			if !errors.Is(err, eventstore.ErrInvalid) {
				t.Errorf("%s: got %v, want ErrInvalid", name, err)
			}
		}
		equal(t, "head", f.head(t, s), eventstore.Head{})
	},
	"an escaped backslash before u0000 is text": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.append(t, one(eventstore.StreamAppend{Stream: s, Events: []events.Draft{
			{Type: "vm.created", Schema: 1, Data: json.RawMessage(`{"a":"\\u0000"}`)},
		}}))
		sameJSON(t, "data", f.load(t, s)[0].Events[0].Data, []byte(`{"a":"\\u0000"}`))
	},
	"nudges once and never blocks": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		for range 3 {
			f.add(t, s, "vm.started")
		}
		select {
		case <-f.Nudged():
		default:
			t.Error("not nudged")
		}
		select {
		case <-f.Nudged():
			t.Error("nudged twice")
		default:
		}
	},
	"what more follows is told with it, or a little later": func(t *testing.T, f *fixture) {
		nudged := func(within time.Duration) bool {
			select {
			case <-f.Nudged():
				return true
			case <-time.After(within):
				return false
			}
		}
		begun := one(to(newStream("vm"), eventstore.Head{}, "vm.start_requested"))
		begun.MoreFollows = true
		f.append(t, begun)
		equal(t, "nudged though nothing followed", nudged(10*time.Second), true)

		begun.Streams[0].Stream = newStream("vm")
		f.append(t, begun)
		f.add(t, begun.Streams[0].Stream, "vm.started")
		equal(t, "nudged by what followed", nudged(10*time.Second), true)
		equal(t, "nudged again", nudged(100*time.Millisecond), false)
	},
	"a cancelled context": func(t *testing.T, f *fixture) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := f.Append(ctx, one(to(newStream("vm"), eventstore.Head{}, "vm.created")))
		wantErr(t, err, context.Canceled)
	},
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}
