package submit_test

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/operation"
	"horcrux/services/api/submit"
)

func FuzzEvent(f *testing.F) {
	for _, kind := range operation.Codec.Types() {
		f.Add(kind, 1, []byte(`{}`))
	}
	f.Add("operation.started", 1, []byte(`{"steps":[{"name":"a","do":{"type":"vm.start"}},{"name":"b","undo":{"type":"vm.stop"}}]}`))
	f.Add("operation.step_succeeded", 1, []byte(`{"step":"a","result":{"path":"/x"}}`))
	f.Add("operation.failed", 1, []byte(`{"problem":{"code":"canceled","detail":"no","fields":[{"field":"a","detail":"b"}]},"log":"x"}`))
	f.Fuzz(func(t *testing.T, kind string, schema int, data []byte) {
		eventstest.Decodes(t, submit.Operations, events.Event{Stream: "operation/x", Version: 1, Type: kind, Schema: schema, Data: data})
	})
}
