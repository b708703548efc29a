package bus

import (
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
)

// FuzzMessage: whatever comes over NATS is a command on its own subject, or refused; and nothing that others tell of
// decisions, ends of operations and services harms who listens.
func FuzzMessage(f *testing.F) {
	cmd := events.Command{
		ID: uuid.MustParse("01900000-0000-7000-8000-000000000001"), To: events.Address{Domain: "compute", Node: events.AnyNode},
		Type: "vm.start", Target: uuid.MustParse("01900000-0000-7000-8000-000000000002"),
	}
	text, err := json.Marshal(cmd)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(cmd.Subject(), text, "AAcB")
	f.Add("", []byte(`{}`), "")
	f.Add("_INBOX.x."+cmd.ID.String(), []byte(`{"command":"`+cmd.ID.String()+`","rejection":{"code":"not_found"}}`), "")
	f.Add(events.ProgressSubject(cmd.ID), []byte(`[{"type":"operation.succeeded","data":{}}]`), "AAcB")
	f.Add(events.PresenceSubject, []byte(`{"domain":"compute","node":"`+cmd.ID.String()+`","dependencies":{"a":""}}`), "")
	f.Fuzz(func(t *testing.T, subject string, data []byte, header string) {
		got, err := decode(subject, data)
		switch {
		case err != nil && !errors.Is(err, ErrUndecodable):
			t.Fatalf("%v is not ErrUndecodable", err)
		case err == nil:
			if got.ID == uuid.Nil || got.Subject() != subject {
				t.Fatalf("%q took %+v", subject, got)
			}
			again, err := json.Marshal(got)
			if err != nil {
				t.Fatalf("%+v cannot be published again: %v", got, err)
			}
			if _, err := decode(subject, again); err != nil {
				t.Fatalf("%s: %v", again, err)
			}
		}

		letter := deadLetter(&jetstream.RawStreamMsg{Data: data, Header: nats.Header{
			subjectHeader: {subject}, reasonHeader: {header}, detailHeader: {header},
		}})
		if (letter.Command != nil) != (err == nil) {
			t.Fatalf("a letter with %v of a message with %v", letter.Command, err)
		}

		b := &Bus{
			Options: Options{Log: slog.New(slog.DiscardHandler)}, inbox: "_INBOX.x.",
			waiting: waiters{m: map[uuid.UUID][]chan Decision{}}, ending: map[uuid.UUID][]chan []events.Event{},
		}
		b.waiting.add(cmd.ID)
		_, stop := b.Ending(cmd.ID)
		defer stop()
		m := &nats.Msg{Subject: subject, Data: data, Header: nats.Header{events.PositionHeader: {header}}}
		b.decided(m)
		b.ended(m)
		r := &Roster{clock: time.Now, seen: map[serviceKey]sighting{}}
		if p, err := presenceOf(m); err == nil {
			r.take(p)
			if _, err := r.Node(header); err != nil {
				t.Fatal(err)
			}
			r.Services()
		}
	})
}
