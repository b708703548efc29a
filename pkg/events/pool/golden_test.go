package pool_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/pool"
)

var defined = pool.Defined{
	Name: "local", Type: "dir", Path: "/var/lib/horcrux/volumes", Options: map[string]string{},
	Node: uuid.MustParse("01900000-0000-7000-8000-000000000001"),
}

func TestGolden(t *testing.T) {
	eventstest.Golden(t, pool.Codec, []eventstest.Case{{
		Type: "pool.defined", Event: defined,
		Data: `{"name":"local","type":"dir","path":"/var/lib/horcrux/volumes","options":{},"node":"01900000-0000-7000-8000-000000000001"}`,
	}})
}

func TestView(t *testing.T) {
	d := pool.Codec.Encode(defined)
	e := events.Event{
		Stream: events.NewStream(pool.Kind, uuid.MustParse("01900000-0000-5000-8000-000000000002")), Version: 1,
		Type: d.Type, Schema: d.Schema, Data: d.Data, At: time.Date(2026, 11, 22, 12, 0, 1, 0, time.UTC),
	}
	doc, deleted, err := pool.Resource.Apply(nil, e)
	if err != nil || deleted {
		t.Fatalf("deleted %t, %v", deleted, err)
	}
	const want = `{"id":"01900000-0000-5000-8000-000000000002","name":"local","version":1,"created_at":"2026-11-22T12:00:01Z","updated_at":"2026-11-22T12:00:01Z","type":"dir","path":"/var/lib/horcrux/volumes","options":{},"node":"01900000-0000-7000-8000-000000000001","state":"active"}`
	if string(doc) != want {
		t.Errorf("got\n%s\nwant\n%s", doc, want)
	}
	e.Type = "pool.drained"
	if _, _, err := pool.Resource.Apply(doc, e); !errors.Is(err, events.ErrUnknownType) {
		t.Errorf("unknown event: %v", err)
	}
}
