package storetest

import (
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

func rejection() *problem.Problem {
	p := problem.Invalid(problem.Field{Field: "cpus", Detail: "at least 1"})
	p.Operation = uuid.NewString()
	return p
}

var outcomeCases = map[string]func(*testing.T, *fixture){
	"unknown command": func(t *testing.T, f *fixture) {
		equal(t, "outcome", f.outcome(t, uuid.New()), nil)
	},
	"accepted": func(t *testing.T, f *fixture) {
		a := one(to(newStream("vm"), eventstore.Head{}, "vm.created", "vm.started"))
		a.Command = uuid.New()
		r := f.append(t, a)
		equal(t, "outcome", r.Outcome, eventstore.Outcome{Position: r.Events[1].Position})
		equal(t, "stored", *f.outcome(t, a.Command), r.Outcome)
	},
	"rejected": func(t *testing.T, f *fixture) {
		op := newStream("operation")
		a := one(to(op, eventstore.Head{}, "operation.failed"))
		a.Command, a.Rejection = uuid.New(), rejection()
		r := f.append(t, a)
		equal(t, "outcome", r.Outcome, eventstore.Outcome{Position: r.Events[0].Position, Rejection: a.Rejection})
		equal(t, "stored", *f.outcome(t, a.Command), r.Outcome)
	},
	"rejected without an event": func(t *testing.T, f *fixture) {
		a := eventstore.Append{Command: uuid.New(), Rejection: rejection()}
		r := f.append(t, a)
		equal(t, "outcome", r.Outcome, eventstore.Outcome{Rejection: a.Rejection})
		equal(t, "stored", *f.outcome(t, a.Command), r.Outcome)
	},
	"stale rejection": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		f.add(t, s, "vm.created")
		stale := f.head(t, s)
		f.add(t, s, "vm.started")
		a := eventstore.Append{Command: uuid.New(), Rejection: rejection(), Streams: []eventstore.StreamAppend{{Stream: s, Head: stale}}}
		_, err := f.Append(t.Context(), a)
		wantErr(t, err, eventstore.ErrWrongVersion)
		equal(t, "outcome", f.outcome(t, a.Command), nil)
	},
	"duplicate": func(t *testing.T, f *fixture) {
		s := newStream("vm")
		a := one(to(s, eventstore.Head{}, "vm.created"))
		a.Command = uuid.New()
		first := f.append(t, a)
		// The outcome comes before the version: the repeat was decided from another history.
		for _, head := range []eventstore.Head{{}, f.head(t, s)} {
			again := one(to(s, head, "vm.deleted"))
			again.Command, again.Rejection = a.Command, rejection()
			r := f.append(t, again)
			equal(t, "duplicate", r.Duplicate, true)
			equal(t, "outcome", r.Outcome, first.Outcome)
			equal(t, "events", len(r.Events), 0)
		}
		equal(t, "version", f.head(t, s).Version, int64(1))
	},
	"duplicate of a rejection": func(t *testing.T, f *fixture) {
		a := eventstore.Append{Command: uuid.New(), Rejection: rejection()}
		f.append(t, a)
		s := newStream("vm")
		again := one(to(s, eventstore.Head{}, "vm.created"))
		again.Command = a.Command
		r := f.append(t, again)
		equal(t, "duplicate", r.Duplicate, true)
		equal(t, "outcome", r.Outcome, eventstore.Outcome{Rejection: a.Rejection})
		equal(t, "head", f.head(t, s), eventstore.Head{})
	},
	"duplicate does not nudge": func(t *testing.T, f *fixture) {
		a := eventstore.Append{Command: uuid.New()}
		f.append(t, a)
		<-f.Nudged()
		f.append(t, a)
		select {
		case <-f.Nudged():
			t.Error("nudged")
		default:
		}
	},
	"rejection needs a command": func(t *testing.T, f *fixture) {
		_, err := f.Append(t.Context(), eventstore.Append{Rejection: rejection()})
		wantErr(t, err, eventstore.ErrInvalid)
	},
	"appends without a command have no outcome": func(t *testing.T, f *fixture) {
		f.add(t, newStream("vm"), "vm.created")
		f.add(t, newStream("vm"), "vm.created")
		equal(t, "outcome", f.outcome(t, uuid.Nil), nil)
	},
}

func name(value string) eventstore.Name { return eventstore.Name{Scope: "vm", Value: value} }

func claim(s events.Stream, head eventstore.Head, names ...eventstore.Name) eventstore.StreamAppend {
	sa := to(s, head, "vm.created")
	sa.Claim = names
	return sa
}

func release(s events.Stream, head eventstore.Head, names ...eventstore.Name) eventstore.StreamAppend {
	sa := to(s, head, "vm.deleted")
	sa.Release = names
	return sa
}

func (f *fixture) holds(t *testing.T, n eventstore.Name, want events.Stream) {
	t.Helper()
	got, err := f.Lookup(t.Context(), n)
	if err != nil {
		t.Fatalf("look up: %v", err)
	}
	equal(t, "holder of "+n.Value, got, want)
}
