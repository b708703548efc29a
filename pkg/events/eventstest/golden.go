// Package eventstest holds the events of a kind against the bytes under which they are recorded.
package eventstest

import (
	"fmt"
	"reflect"
	"slices"

	"horcrux/pkg/events"
)

// T is what Golden needs of a *testing.T. (What is below pkg/events imports no package that sees the world.)
type T interface {
	Helper()
	Errorf(format string, args ...any)
}

// Case is an event and its bytes. What is recorded is read for ever: the bytes of a case do not change. A new schema
// gets a case of its own beside those of the old ones.
type Case struct {
	Type   string // "vm.started"
	Schema int    // 0 means 1
	Event  any    // what the bytes are read as today
	Data   string
}

// Golden fails t unless each event is written as its bytes, the bytes of every schema are read as the event, and no
// type of the codec and no schema of a type is without a case.
func Golden(t T, codec *events.Codec, cases []Case) {
	t.Helper()
	seen := map[string]bool{}
	schemas := map[string]int{}
	for _, c := range cases {
		c.Schema = max(c.Schema, 1)
		seen[key(c.Type, c.Schema)] = true
		d := codec.Encode(c.Event)
		schemas[c.Type] = d.Schema
		if d.Type != c.Type {
			t.Errorf("%T is recorded as %s, not as %s", c.Event, d.Type, c.Type)
		}
		if c.Schema == d.Schema && string(d.Data) != c.Data {
			t.Errorf("%s is written as\n%s\nwant\n%s", c.Type, d.Data, c.Data)
		}
		got, err := codec.Decode(events.Event{Type: c.Type, Schema: c.Schema, Data: []byte(c.Data)})
		if err != nil || !reflect.DeepEqual(got, c.Event) {
			t.Errorf("%s is read as\n%#v, %v\nwant\n%#v", key(c.Type, c.Schema), got, err, c.Event)
		}
	}
	types := codec.Types()
	slices.Sort(types)
	for _, name := range types {
		for schema := 1; schema <= max(schemas[name], 1); schema++ {
			if !seen[key(name, schema)] {
				t.Errorf("%s has no golden bytes", key(name, schema))
			}
		}
	}
}

func key(name string, schema int) string { return fmt.Sprintf("%s schema %d", name, schema) }

// Decodes fails t when an event with any data that the resource's codec reads is not written as what it was read as,
// or cannot be folded twice in a row. Whatever it does not read is an error, never a panic: fuzz tests call it.
func Decodes(t T, r *events.Resource, e events.Event) {
	t.Helper()
	v, err := r.Codec.Decode(e)
	if err != nil {
		return
	}
	once := r.Codec.Encode(v)
	again, err := r.Codec.Decode(events.Event{Type: once.Type, Schema: once.Schema, Data: once.Data})
	if err != nil {
		t.Errorf("%s is written as %s, which cannot be read: %v", e.Data, once.Data, err)
		return
	}
	if twice := r.Codec.Encode(again); string(twice.Data) != string(once.Data) {
		t.Errorf("%s is written as %s, then as %s", e.Data, once.Data, twice.Data)
	}
	fold, err := r.Fold(nil)
	for range 2 {
		if err == nil {
			_, err = fold.Apply(e)
		}
	}
	if err == nil {
		_, err = fold.Doc()
	}
	if err != nil {
		t.Errorf("%s %s cannot be folded: %v", e.Type, e.Data, err)
	}
}
