package pool_test

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/pool"
)

func FuzzEvent(f *testing.F) {
	for _, kind := range pool.Codec.Types() {
		f.Add(kind, 1, []byte(`{"name":"local","type":"dir","path":"/p"}`))
	}
	f.Fuzz(func(t *testing.T, kind string, schema int, data []byte) {
		eventstest.Decodes(t, &pool.Resource, events.Event{Stream: "pool/x", Version: 1, Type: kind, Schema: schema, Data: data})
	})
}
