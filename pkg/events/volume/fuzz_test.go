package volume_test

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/volume"
)

func FuzzEvent(f *testing.F) {
	for _, c := range golden {
		f.Add(c.Type, max(c.Schema, 1), []byte(c.Data))
	}
	f.Fuzz(func(t *testing.T, kind string, schema int, data []byte) {
		eventstest.Decodes(t, &volume.Resource, events.Event{Stream: "volume/x", Version: 1, Type: kind, Schema: schema, Data: data})
	})
}
