package pool_test

import (
	"reflect"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/pool"
)

// What is recorded is read for ever: these bytes do not change. A new schema gets new bytes beside them.
func TestGolden(t *testing.T) {
	event := pool.Defined{
		Name: "local", Type: "dir", Path: "/var/lib/horcrux/volumes", Options: map[string]string{},
		Node: uuid.MustParse("01900000-0000-7000-8000-000000000001"),
	}
	const golden = `{"name":"local","type":"dir","path":"/var/lib/horcrux/volumes","options":{},"node":"01900000-0000-7000-8000-000000000001"}`
	d := pool.Codec.Encode(event)
	if d.Type != "pool.defined" || d.Schema != 1 || string(d.Data) != golden {
		t.Errorf("%s schema %d is\n%s\nwant\n%s", d.Type, d.Schema, d.Data, golden)
	}
	got, err := pool.Codec.Decode(events.Event{Type: "pool.defined", Schema: 1, Data: []byte(golden)})
	if err != nil || !reflect.DeepEqual(got, event) {
		t.Errorf("read %#v, %v; want %#v", got, err, event)
	}
}
