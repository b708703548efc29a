package storetest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

var readCases = map[string]func(*testing.T, *fixture){
	"empty log": func(t *testing.T, f *fixture) {
		p := f.read(t, events.Position{}, eventstore.ReadOptions{})
		equal(t, "page", len(p.Events), 0)
		equal(t, "next", p.Next, events.Position{})
		equal(t, "end", f.end(t), events.Position{})
	},
	"in the order of the log": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		var want []events.Event
		for range 3 {
			want = append(want, f.add(t, a, "vm.started", "vm.stopped").Events...)
			want = append(want, f.add(t, b, "vm.started").Events...)
		}
		p := f.read(t, events.Position{}, eventstore.ReadOptions{})
		equal(t, "events", len(p.Events), len(want))
		for i, e := range p.Events {
			sameEvent(t, e, want[i])
		}
		equal(t, "next", p.Next, want[len(want)-1].Position)
		equal(t, "end", f.end(t), p.Next)
		equal(t, "more", p.More, false)
	},
	"a page goes on where the one before ended": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		for i := range 7 {
			f.add(t, s, fmt.Sprint("vm.", i))
		}
		var got []string
		after := events.Position{}
		for i := range 4 {
			p := f.read(t, after, eventstore.ReadOptions{Limit: 2})
			got = append(got, types(p.Events)...)
			equal(t, fmt.Sprint("more ", i), p.More, i < 3)
			after = p.Next
		}
		equal(t, "types", got, []string{"vm.0", "vm.1", "vm.2", "vm.3", "vm.4", "vm.5", "vm.6"})
		p := f.read(t, after, eventstore.ReadOptions{})
		equal(t, "after the last", len(p.Events), 0)
		equal(t, "next", p.Next, after)
	},
	"a full last page has no more": func(t *testing.T, f *fixture) {
		f.add(t, newStream("vm"), "vm.1", "vm.2")
		equal(t, "more", f.read(t, events.Position{}, eventstore.ReadOptions{Limit: 2}).More, false)
	},
	"within one append": func(t *testing.T, f *fixture) {
		r := f.add(t, newStream("vm"), "vm.1", "vm.2", "vm.3")
		p := f.read(t, r.Events[0].Position, eventstore.ReadOptions{})
		equal(t, "types", types(p.Events), []string{"vm.2", "vm.3"})
	},
	"narrowed": func(t *testing.T, f *fixture) {
		vm, op := newStream("vm"), newStream("operation")
		f.add(t, vm, "vm.created", "vm.start_requested", "vm.startXrequested")
		f.add(t, op, "operation.requested")
		f.add(t, newStream("vmx"), "vmx.created")
		for name, c := range map[string]struct {
			opts eventstore.ReadOptions
			want []string
		}{
			"kind":             {eventstore.ReadOptions{Kinds: []string{"vm"}}, []string{"vm.created", "vm.start_requested", "vm.startXrequested"}},
			"kinds":            {eventstore.ReadOptions{Kinds: []string{"vmx", "operation"}}, []string{"operation.requested", "vmx.created"}},
			"type":             {eventstore.ReadOptions{Types: []string{"vm.start_requested"}}, []string{"vm.start_requested"}},
			"pattern":          {eventstore.ReadOptions{Types: []string{"vm.*"}}, []string{"vm.created", "vm.start_requested", "vm.startXrequested"}},
			"types":            {eventstore.ReadOptions{Types: []string{"vm.created", "operation.*"}}, []string{"vm.created", "operation.requested"}},
			"percent is text":  {eventstore.ReadOptions{Types: []string{"vm.%"}}, []string{}},
			"stream":           {eventstore.ReadOptions{Stream: op}, []string{"operation.requested"}},
			"stream and type":  {eventstore.ReadOptions{Stream: vm, Types: []string{"vm.created"}}, []string{"vm.created"}},
			"kind and type":    {eventstore.ReadOptions{Kinds: []string{"operation"}, Types: []string{"vm.*"}}, []string{}},
			"missing stream":   {eventstore.ReadOptions{Stream: newStream("vm")}, []string{}},
			"everything there": {eventstore.ReadOptions{Types: []string{"*"}}, []string{"vm.created", "vm.start_requested", "vm.startXrequested", "operation.requested", "vmx.created"}},
		} {
			p := f.read(t, events.Position{}, c.opts)
			equal(t, name, types(p.Events), c.want)
			equal(t, name+": next moves past what was left out", p.Next, f.end(t))
		}
		p := f.read(t, events.Position{}, eventstore.ReadOptions{Types: []string{"vm.created", "vmx.created"}, Limit: 1})
		equal(t, "more", p.More, true)
		equal(t, "next of a full page", p.Next, p.Events[0].Position)
	},
	"default and greatest limit": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		many := make([]string, 1001)
		for i := range many {
			many[i] = "vm.started"
		}
		f.add(t, s, many...)
		equal(t, "default", len(f.read(t, events.Position{}, eventstore.ReadOptions{}).Events), 1000)
		equal(t, "all", len(f.read(t, events.Position{}, eventstore.ReadOptions{Limit: 1 << 30}).Events), 1001)
	},
	"unknown era": func(t *testing.T, f *fixture) {
		r := f.add(t, newStream("vm"), "vm.created")
		for _, era := range []int16{0, r.Outcome.Position.Era + 1} {
			p := r.Outcome.Position
			p.Era = era
			_, err := f.Read(t.Context(), p, eventstore.ReadOptions{})
			wantErr(t, err, eventstore.ErrUnknownEra)
		}
	},
	"no event appears before one that was read": func(t *testing.T, f *fixture) {
		const writers, each = 8, 25
		var wg sync.WaitGroup
		for range writers {
			s := newStream("vm")
			wg.Go(func() {
				head := eventstore.Head{}
				for range each {
					r, err := f.Append(t.Context(), one(to(s, head, "vm.started")))
					if err != nil {
						t.Error(err)
						return
					}
					head = eventstore.Head{Version: r.Events[0].Version, Hash: r.Events[0].Hash, At: r.Events[0].At}
				}
			})
		}
		seen := map[events.Stream]int64{}
		total, after := 0, events.Position{}
		for deadline := time.Now().Add(time.Minute); total < writers*each && time.Now().Before(deadline); {
			p := f.read(t, after, eventstore.ReadOptions{Limit: 10})
			for _, e := range p.Events {
				equal(t, "version", e.Version, seen[e.Stream]+1)
				seen[e.Stream] = e.Version
			}
			total += len(p.Events)
			if p.Next.Compare(after) < 0 {
				t.Fatalf("next %v is before %v", p.Next, after)
			}
			after = p.Next
		}
		wg.Wait()
		equal(t, "events read", total, writers*each)
	},
	"open streams": func(t *testing.T, f *fixture) {
		a, b, c := newStream("vm"), newStream("vm"), newStream("vm")
		open := func(s events.Stream, address string) {
			sa := to(s, f.head(t, s), "vm.start_requested")
			sa.Open = address
			f.append(t, one(sa))
		}
		wantOpen := func(address string, want ...events.Stream) {
			t.Helper()
			got, err := f.Open(t.Context(), address)
			if err != nil {
				t.Fatal(err)
			}
			set := map[events.Stream]bool{}
			for _, s := range got {
				set[s] = true
			}
			equal(t, "open at "+address, len(got), len(want))
			for _, s := range want {
				equal(t, "open at "+address, set[s], true)
			}
		}
		open(a, "compute/1")
		open(b, "compute/1")
		open(c, "compute/2")
		wantOpen("compute/1", a, b)
		wantOpen("compute/2", c)
		// A stream that is only compared stays as it is.
		f.append(t, one(eventstore.StreamAppend{Stream: a, Head: f.head(t, a)}))
		wantOpen("compute/1", a, b)
		open(b, "compute/2")
		wantOpen("compute/1", a)
		wantOpen("compute/2", b, c)
		open(a, "")
		wantOpen("compute/1")
		wantOpen("")
	},
}
