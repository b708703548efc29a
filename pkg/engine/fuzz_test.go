package engine

import (
	"bytes"
	"encoding/json"
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/process"
)

// FuzzStepEnd: however a step ended and whatever is recorded of its process, what is next follows without a panic.
func FuzzStepEnd(f *testing.F) {
	f.Add([]byte(`{"step":"a","command":"01900000-0000-7000-8000-000000000001","result":{"path":"/x"}}`), []byte(`{"steps":[{"name":"a"},{"name":"b"}]}`))
	f.Add([]byte(`{"step":"a","problem":{"code":"effect_failed","detail":"no"},"log":"x"}`), []byte(`{"steps":[{"name":"a","undo":{}},{"name":"a","no_return":true}]}`))
	f.Add([]byte(`{}`), []byte(`null`))
	f.Fuzz(func(t *testing.T, data, plan []byte) {
		var end stepEnd
		if json.Unmarshal(data, &end) != nil {
			return
		}
		once, err := json.Marshal(end)
		if err != nil {
			t.Fatalf("%s is read as %+v, which cannot be sent: %v", data, end, err)
		}
		var again stepEnd
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%s: %v", once, err)
		}
		if twice, err := json.Marshal(again); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%s is sent as %s, %v", once, twice, err)
		}
		h := eventstore.History{Stream: "operation/x"}
		for _, d := range []events.Draft{
			{Type: "operation.started", Schema: 1, Data: plan},
			operation.Codec.Encode(operation.StepSucceeded{Step: end.Step, Result: end.Result}),
			operation.Codec.Encode(operation.StepFailed{Step: end.Step, Problem: end.Problem, Log: end.Log}),
			operation.Codec.Encode(operation.StepUndone{Step: end.Step, Problem: end.Problem}),
		} {
			h.Events = append(h.Events, events.Event{Type: d.Type, Schema: d.Schema, Data: d.Data})
			s, err := foldProcess(h)
			if err != nil {
				return
			}
			process.Next(s)
			_ = process.Cancel(s)
		}
	})
}
