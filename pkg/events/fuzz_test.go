package events_test

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// FuzzEnvelope: whatever is read as an event or a command is written as what is read as the same, and names its
// stream, subject and consumer without a panic.
func FuzzEnvelope(f *testing.F) {
	id := uuid.MustParse("01900000-0000-7000-8000-000000000001")
	version := int64(3)
	for _, v := range []any{
		events.Event{
			ID: id, Stream: events.NewStream("vm", id), Version: 1, Type: "vm.started", Schema: 1, Data: []byte(`{}`),
			Meta: events.Meta{Actor: "uid:0", Operation: id}, Position: events.Position{Tx: 7, Seq: 1},
		},
		events.Command{
			ID: id, To: events.Address{Domain: "compute", Node: events.AnyNode}, Type: "vm.start", Target: id, Data: []byte(`{"a":[1]}`),
			IfVersion: &version, Step: "start", ReplyTo: &events.Address{Domain: "compute", Node: id.String()},
			Inputs: map[string]json.RawMessage{"disk 0": []byte(`{"path":"/x"}`)}, Requested: &events.Chained{Hash: []byte{1}},
		},
	} {
		text, err := json.Marshal(v)
		if err != nil { // an event without data is none
			text = []byte(`{"requested":{"hash":"AQ=="}}`)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"type":".","stream":"/","position":"AAcB"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e events.Event
		if same(t, data, &e, &events.Event{}) {
			_, _, _ = e.Stream.Kind(), e.Stream.ID(), e.Subject("compute")
		}
		var c events.Command
		if same(t, data, &c, &events.Command{}) {
			_, _, _, _ = c.Subject(), c.Stream(), c.To.CommandFilter(), c.Intent()
		}
	})
}

// same reads data into v and says whether that went well; what is written of v must be read as the same.
func same(t *testing.T, data []byte, v, again any) bool {
	t.Helper()
	if json.Unmarshal(data, v) != nil {
		return false
	}
	once, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("%s is read as %+v, which cannot be written: %v", data, v, err)
	}
	if err := json.Unmarshal(once, again); err != nil {
		t.Fatalf("%s cannot be read: %v", once, err)
	}
	if twice, err := json.Marshal(again); err != nil || !bytes.Equal(once, twice) {
		t.Fatalf("%s is written as %s, %v", once, twice, err)
	}
	return true
}
