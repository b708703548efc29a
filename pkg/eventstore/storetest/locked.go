package storetest

import (
	"errors"
	"sync"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

var lockedCases = map[string]func(*testing.T, *fixture){
	"loads, decides, appends": func(t *testing.T, f *fixture) {
		vm, op, command := newStream("vm"), newStream("operation"), uuid.New()
		f.add(t, op, "operation.requested")
		r, err := f.Locked(t.Context(), command, []events.Stream{vm, op}, func(hs []eventstore.History) (eventstore.Append, error) {
			equal(t, "histories", len(hs), 2)
			equal(t, "first", hs[0].Stream, vm)
			equal(t, "second", types(hs[1].Events), []string{"operation.requested"})
			return eventstore.Append{Streams: []eventstore.StreamAppend{
				to(vm, hs[0].Head, "vm.created"), to(op, hs[1].Head, "operation.started"),
			}}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "ids", r.Events[1].ID, events.DerivedID(command, 1))
		equal(t, "stored", *f.outcome(t, command), r.Outcome)
		sameEvent(t, f.load(t, op)[0].Events[1], r.Events[1])
		select {
		case <-f.Nudged():
		default:
			t.Error("not nudged")
		}
	},
	"a decided command is not decided again": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		a := one(to(s, eventstore.Head{}, "vm.created"))
		a.Command = uuid.New()
		first := f.append(t, a)
		r, err := f.Locked(t.Context(), a.Command, []events.Stream{s}, func([]eventstore.History) (eventstore.Append, error) {
			t.Error("decided again")
			return eventstore.Append{}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "result", r, eventstore.Result{Outcome: first.Outcome, Duplicate: true})
		f.add(t, s, "vm.started") // the locks are free again
	},
	"an error of decide is returned and nothing is recorded": func(t *testing.T, f *fixture) {
		s, boom := newStream("vm"), errors.New("boom")
		_, err := f.Locked(t.Context(), uuid.New(), []events.Stream{s}, func([]eventstore.History) (eventstore.Append, error) {
			return one(to(s, eventstore.Head{}, "vm.created")), boom
		})
		wantErr(t, err, boom)
		equal(t, "head", f.head(t, s), eventstore.Head{})
		f.add(t, s, "vm.created")
	},
	"only streams that are locked": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		_, err := f.Locked(t.Context(), uuid.New(), []events.Stream{s}, func([]eventstore.History) (eventstore.Append, error) {
			return one(to(newStream("vm"), eventstore.Head{}, "vm.created")), nil
		})
		wantErr(t, err, eventstore.ErrInvalid)
		f.add(t, s, "vm.created")
	},
	"a taken name leaves nothing": func(t *testing.T, f *fixture) {
		a, b := newStream("vm"), newStream("vm")
		f.append(t, one(claim(a, eventstore.Head{}, name("1"))))
		_, err := f.Locked(t.Context(), uuid.New(), []events.Stream{b}, func(hs []eventstore.History) (eventstore.Append, error) {
			return one(claim(b, hs[0].Head, name("1"))), nil
		})
		wantTaken(t, err, name("1"), a)
		equal(t, "head", f.head(t, b), eventstore.Head{})
	},
	"of 64 contenders on one stream none gives up": func(t *testing.T, f *fixture) {
		const contenders = 64
		s := newStream("vm")
		var wg sync.WaitGroup
		errs := make([]error, contenders)
		for i := range contenders {
			wg.Go(func() {
				_, errs[i] = eventstore.Run(t.Context(), f, uuid.New(), []events.Stream{s}, func(hs []eventstore.History) (eventstore.Append, error) {
					return one(to(s, hs[0].Head, "vm.started")), nil
				})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
		h := f.load(t, s)[0]
		equal(t, "events", len(h.Events), contenders)
		for i, e := range h.Events {
			equal(t, "version", e.Version, int64(i+1))
			if i > 0 && h.Events[i-1].Position.Compare(e.Position) >= 0 {
				t.Errorf("version %d is not after version %d in the log", i+1, i)
			}
		}
	},
	"one command in many hands is decided once": func(t *testing.T, f *fixture) {
		const hands = 16
		vm, op, command := newStream("vm"), newStream("operation"), uuid.New()
		var wg sync.WaitGroup
		results, errs := make([]eventstore.Result, hands), make([]error, hands)
		for i := range hands {
			wg.Go(func() {
				results[i], errs[i] = eventstore.Run(t.Context(), f, command, []events.Stream{vm, op}, func(hs []eventstore.History) (eventstore.Append, error) {
					return eventstore.Append{Streams: []eventstore.StreamAppend{
						to(op, hs[1].Head, "operation.started"), to(vm, hs[0].Head, "vm.created"),
					}}, nil
				})
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		firsts := 0
		for _, r := range results {
			equal(t, "outcome", r.Outcome, results[0].Outcome)
			if !r.Duplicate {
				firsts++
			}
		}
		equal(t, "decisions", firsts, 1)
		equal(t, "version", f.head(t, vm).Version, int64(1))
	},
}
