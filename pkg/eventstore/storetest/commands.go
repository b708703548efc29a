package storetest

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

func (f *fixture) command() events.Command {
	version := int64(3)
	return events.Command{
		ID: uuid.New(), To: events.Address{Domain: "compute", Node: events.AnyNode}, Type: "vm.start", Target: uuid.New(),
		Data: json.RawMessage(`{"a":[1,"x"]}`), Meta: events.Meta{Actor: "uid:0", Operation: uuid.New()},
		Deadline: f.clock.Now().Add(time.Minute), IfVersion: &version, Step: "disk 0",
		ReplyTo: &events.Address{Domain: "compute", Node: uuid.NewString()},
		Inputs:  map[string]json.RawMessage{"disk 0": json.RawMessage(`{}`)},
	}
}

// send records a command.
func (f *fixture) send(t *testing.T, c events.Command) {
	t.Helper()
	f.append(t, eventstore.Append{Send: []events.Command{c}})
}

// wantDue says which commands are due at a time, in order.
func (f *fixture) wantDue(t *testing.T, at time.Time, want ...uuid.UUID) {
	t.Helper()
	got := []uuid.UUID{}
	for _, u := range f.due(t, at) {
		got = append(got, u.Command.ID)
	}
	equal(t, "due", got, append([]uuid.UUID{}, want...))
}

var commandCases = map[string]func(*testing.T, *fixture){
	"due five seconds after it was recorded": func(t *testing.T, f *fixture) {
		c, at := f.command(), f.clock.Now()
		f.send(t, c)
		f.wantDue(t, at.Add(4999*time.Millisecond))
		due := f.due(t, at.Add(5*time.Second))
		equal(t, "due", len(due), 1)
		equal(t, "recorded", due[0].Recorded, at)
		equal(t, "attempt", due[0].Attempt, 0)
		got, err := json.Marshal(due[0].Command)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		sameJSON(t, "command", got, want)
	},
	"forgotten once it is old": func(t *testing.T, f *fixture) {
		forget := func(limit, want int) {
			t.Helper()
			n, err := f.Forget(t.Context(), f.clock.Now().Add(-eventstore.OutcomeLifetime), limit)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, "forgotten", n, want)
		}
		decided := []uuid.UUID{uuid.New(), uuid.New(), uuid.New()}
		for _, id := range decided {
			f.append(t, eventstore.Append{Command: id})
		}
		waiting := f.command()
		f.send(t, waiting)
		f.clock.add(eventstore.OutcomeLifetime)
		forget(10, 0)
		f.clock.add(time.Second)
		late := uuid.New()
		f.append(t, eventstore.Append{Command: late})
		forget(2, 2)
		forget(2, 1)
		forget(2, 0)
		for _, id := range decided {
			equal(t, "outcome", f.outcome(t, id), nil)
		}
		if f.outcome(t, late) == nil {
			t.Error("what was decided just now is forgotten")
		}
		f.wantDue(t, f.clock.Now(), waiting.ID)
	},
	"the longest due first, up to the limit": func(t *testing.T, f *fixture) {
		a, b, c := f.command(), f.command(), f.command()
		for _, cmd := range []events.Command{a, b, c} {
			f.send(t, cmd)
			f.clock.add(time.Second)
		}
		at := f.clock.Now().Add(time.Minute)
		f.wantDue(t, at, a.ID, b.ID, c.ID)
		due, err := f.Due(t.Context(), at, 2)
		if err != nil || len(due) != 2 || due[0].Command.ID != a.ID || due[1].Command.ID != b.ID {
			t.Errorf("got %v, %v", due, err)
		}
	},
	"published": func(t *testing.T, f *fixture) {
		c, at := f.command(), f.clock.Now()
		f.send(t, c)
		for i := range 2 {
			next := at.Add(time.Duration(i+1) * time.Minute)
			if err := f.Published(t.Context(), c.ID, next); err != nil {
				t.Fatal(err)
			}
			f.wantDue(t, next.Add(-time.Millisecond))
			due := f.due(t, next)
			equal(t, "due", len(due), 1)
			equal(t, "attempt", due[0].Attempt, i+1)
		}
	},
	"recorded again": func(t *testing.T, f *fixture) {
		c := f.command()
		f.send(t, c)
		if err := f.Published(t.Context(), c.ID, f.clock.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		f.send(t, c)
		f.wantDue(t, f.clock.Now().Add(time.Minute))
	},
	"decided is never due": func(t *testing.T, f *fixture) {
		c := f.command()
		f.send(t, c)
		f.append(t, eventstore.Append{Command: c.ID})
		late := f.clock.Now().Add(time.Hour)
		f.wantDue(t, late)
		for name, act := range map[string]func() error{
			"published": func() error { return f.Published(t.Context(), c.ID, f.clock.Now()) },
			"parked":    func() error { return f.Park(t.Context(), c.ID) },
			"unparked":  func() error { return f.Unpark(t.Context(), c.ID) },
		} {
			if err := act(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			f.wantDue(t, late)
		}
		f.send(t, c)
		f.wantDue(t, late)
		equal(t, "decided", f.outcome(t, c.ID) != nil, true)
	},
	"decided before it was recorded": func(t *testing.T, f *fixture) {
		c := f.command()
		f.append(t, eventstore.Append{Command: c.ID})
		f.send(t, c)
		f.wantDue(t, f.clock.Now().Add(time.Hour))
	},
	"parked is not due before its deadline": func(t *testing.T, f *fixture) {
		c := f.command()
		c.Deadline = f.clock.Now().Add(2 * time.Hour)
		f.send(t, c)
		if err := f.Park(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		f.wantDue(t, c.Deadline.Add(-time.Millisecond))
		f.wantDue(t, c.Deadline.Add(time.Millisecond), c.ID)
	},
	"unparked is due at once": func(t *testing.T, f *fixture) {
		c := f.command()
		f.send(t, c)
		if err := f.Published(t.Context(), c.ID, f.clock.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := f.Park(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		if err := f.Unpark(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		due := f.due(t, f.clock.Now())
		equal(t, "due", len(due), 1)
		equal(t, "attempt", due[0].Attempt, 1)
	},
	"parked may still be decided": func(t *testing.T, f *fixture) {
		c := f.command()
		f.send(t, c)
		if err := f.Park(t.Context(), c.ID); err != nil {
			t.Fatal(err)
		}
		f.append(t, eventstore.Append{Command: c.ID})
		equal(t, "decided", f.outcome(t, c.ID) != nil, true)
	},
	"unknown": func(t *testing.T, f *fixture) {
		for _, err := range []error{
			f.Published(t.Context(), uuid.New(), f.clock.Now()), f.Park(t.Context(), uuid.New()), f.Unpark(t.Context(), uuid.New()),
		} {
			equal(t, "error", err, nil)
		}
		f.wantDue(t, f.clock.Now().Add(time.Hour))
	},
	"deciding one sends the next": func(t *testing.T, f *fixture) {
		first, next := f.command(), f.command()
		f.send(t, first)
		f.append(t, eventstore.Append{Command: first.ID, Send: []events.Command{next, f.command()}})
		equal(t, "due", len(f.due(t, f.clock.Now().Add(time.Minute))), 2)
		// A duplicate sends nothing.
		f.append(t, eventstore.Append{Command: first.ID, Send: []events.Command{f.command()}})
		equal(t, "due", len(f.due(t, f.clock.Now().Add(time.Minute))), 2)
	},
	"refused": func(t *testing.T, f *fixture) {
		c := f.command()
		c.Data = json.RawMessage(`"\u0000"`)
		_, err := f.Append(t.Context(), eventstore.Append{Send: []events.Command{c}})
		wantErr(t, err, eventstore.ErrInvalid)
		_, err = f.Append(t.Context(), eventstore.Append{Send: []events.Command{{Type: "vm.start"}}})
		wantErr(t, err, eventstore.ErrInvalid)
	},
}

var requestCases = map[string]func(*testing.T, *fixture){
	"unknown": func(t *testing.T, f *fixture) { f.wantRequest(t, "a", "k", nil) },
	"remembered": func(t *testing.T, f *fixture) {
		r := request("a", "k")
		f.append(t, eventstore.Append{Idempotency: r})
		f.wantRequest(t, "a", "k", r)
		f.wantRequest(t, "b", "k", nil)
		f.wantRequest(t, "a", "l", nil)
	},
	"taken": func(t *testing.T, f *fixture) {
		r, s := request("a", "k"), newStream("operation")
		f.append(t, eventstore.Append{Idempotency: r})
		a := one(to(s, eventstore.Head{Version: 9}, "operation.requested")) // the key comes before the version
		a.Idempotency = request("a", "k")
		_, err := f.Append(t.Context(), a)
		wantErr(t, err, eventstore.ErrKeyTaken)
		equal(t, "head", f.head(t, s), eventstore.Head{})
		f.wantRequest(t, "a", "k", r)
		f.append(t, eventstore.Append{Idempotency: request("b", "k")})
	},
	"forgotten after a day": func(t *testing.T, f *fixture) {
		r := request("a", "k")
		f.append(t, eventstore.Append{Idempotency: r})
		f.clock.add(eventstore.KeyLifetime - time.Second)
		f.wantRequest(t, "a", "k", r)
		f.clock.add(time.Second)
		f.wantRequest(t, "a", "k", nil)
		again := request("a", "k")
		f.append(t, eventstore.Append{Idempotency: again})
		f.wantRequest(t, "a", "k", again)
	},
	"a failed append remembers nothing": func(t *testing.T, f *fixture) {
		a := one(to(newStream("vm"), eventstore.Head{Version: 1}, "vm.started"))
		a.Idempotency = request("a", "k")
		_, err := f.Append(t.Context(), a)
		wantErr(t, err, eventstore.ErrWrongVersion)
		f.wantRequest(t, "a", "k", nil)
	},
}

func request(actor, key string) *eventstore.Idempotency {
	return &eventstore.Idempotency{Actor: actor, Key: key, Request: []byte{0, 1, 0xff}, Operation: uuid.New()}
}

func (f *fixture) wantRequest(t *testing.T, actor, key string, want *eventstore.Idempotency) {
	t.Helper()
	got, err := f.Request(t.Context(), actor, key)
	if err != nil {
		t.Fatalf("request: %v", err)
	}
	equal(t, "request", got, want)
}
