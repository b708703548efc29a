package storetest

import (
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

var nameCases = map[string]func(*testing.T, *fixture){
	"free": func(t *testing.T, f *fixture) { f.holds(t, name("web-1"), "") },
	"claimed, released, claimed": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("web-1"), name("web-2"))))
		f.holds(t, name("web-1"), a)
		f.append(t, one(release(a, f.head(t, a), name("web-1"))))
		f.holds(t, name("web-1"), "")
		f.append(t, one(claim(b, eventstore.Head{}, name("web-1"))))
		f.holds(t, name("web-1"), b)
		f.holds(t, name("web-2"), a)
	},
	"taken": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("web-1"))))
		sa := claim(b, eventstore.Head{}, name("free"), name("web-1"))
		sa.Open = "compute/a"
		command := uuid.New()
		_, err := f.Append(t.Context(), eventstore.Append{
			Command: command, Streams: []eventstore.StreamAppend{sa},
			Send:        []events.Command{{ID: uuid.New(), Type: "vm.start"}},
			Idempotency: &eventstore.Idempotency{Actor: "a", Key: "k", Operation: uuid.New()},
		})
		wantTaken(t, err, name("web-1"), a)
		equal(t, "head", f.head(t, b), eventstore.Head{})
		equal(t, "outcome", f.outcome(t, command), nil)
		equal(t, "due", len(f.due(t, f.clock.Now().Add(eventstore.FirstDue))), 0)
		f.holds(t, name("free"), "")
		if open, err := f.Open(t.Context(), "compute/a"); err != nil || len(open) != 0 {
			t.Errorf("open: %v, %v", open, err)
		}
		if r, err := f.Request(t.Context(), "a", "k"); err != nil || r != nil {
			t.Errorf("request: %v, %v", r, err)
		}
		page := f.read(t, events.Position{}, eventstore.ReadOptions{})
		equal(t, "events", len(page.Events), 1)
	},
	"scopes are apart": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("pool")
		f.append(t, one(claim(a, eventstore.Head{}, eventstore.Name{Scope: "vm", Value: "x"})))
		f.append(t, one(claim(b, eventstore.Head{}, eventstore.Name{Scope: "pool", Value: "x"})))
	},
	"all holders of a scope": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, eventstore.Append{Streams: []eventstore.StreamAppend{
			claim(a, eventstore.Head{}, name("a")), claim(b, eventstore.Head{}, name("b"), eventstore.Name{Scope: "other", Value: "b"}),
		}})
		got, err := f.Holders(t.Context(), "vm")
		if err != nil {
			t.Fatal(err)
		}
		want := []events.Stream{a, b}
		slices.Sort(want)
		equal(t, "holders", got, want)
	},
	"claimed again by its holder": func(t *testing.T, f *fixture) {
		a := newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("web-1"))))
		f.append(t, one(claim(a, f.head(t, a), name("web-1"))))
		f.holds(t, name("web-1"), a)
	},
	"only the holder releases": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("web-1"))))
		f.append(t, one(release(b, eventstore.Head{}, name("web-1"))))
		f.holds(t, name("web-1"), a)
	},
	"swapped in one append": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("1"))))
		f.append(t, one(claim(b, eventstore.Head{}, name("2"))))
		first, second := claim(a, f.head(t, a), name("2")), claim(b, f.head(t, b), name("1"))
		first.Release, second.Release = []eventstore.Name{name("1")}, []eventstore.Name{name("2")}
		f.append(t, eventstore.Append{Streams: []eventstore.StreamAppend{first, second}})
		f.holds(t, name("1"), b)
		f.holds(t, name("2"), a)
	},
	"claimed twice in one append": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		_, err := f.Append(t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{
			claim(a, eventstore.Head{}, name("1")), claim(b, eventstore.Head{}, name("1")),
		}})
		wantTaken(t, err, name("1"), a)
		f.holds(t, name("1"), "")
	},
	"one of many claimants wins": func(t *testing.T, f *fixture) {
		const claimants = 16
		streams := make([]events.Stream, claimants)
		errs := make([]error, claimants)
		var wg sync.WaitGroup
		for i := range claimants {
			streams[i] = newStream("vm")
			names := []eventstore.Name{name("a"), name("b")}
			if i%2 == 1 {
				names[0], names[1] = names[1], names[0]
			}
			wg.Go(func() { _, errs[i] = f.Append(t.Context(), one(claim(streams[i], eventstore.Head{}, names...))) })
		}
		wg.Wait()
		winner := events.Stream("")
		for i, err := range errs {
			if err == nil {
				equal(t, "winner before", winner, "")
				winner = streams[i]
			}
		}
		f.holds(t, name("a"), winner)
		f.holds(t, name("b"), winner)
		for _, err := range errs {
			var taken *eventstore.NameTakenError
			if err != nil && (!errors.As(err, &taken) || taken.Holder != winner) {
				t.Errorf("got %v, want taken by %s", err, winner)
			}
		}
	},
}

func wantTaken(t *testing.T, err error, n eventstore.Name, holder events.Stream) {
	t.Helper()
	var taken *eventstore.NameTakenError
	if !errors.As(err, &taken) {
		t.Fatalf("got error %v, want *NameTakenError", err)
	}
	equal(t, "taken", *taken, eventstore.NameTakenError{Name: n, Holder: holder})
}
