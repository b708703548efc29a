package traced_test

import (
	"context"
	"reflect"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"horcrux/pkg/events"
	"horcrux/pkg/trace"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/fake"
	"horcrux/services/storage/backend/traced"
)

// TestEveryCall calls each method of the interface that takes a context: one that is added and not shown is found here.
func TestEveryCall(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	trace.Record(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	defer trace.Record(nil)
	inner, err := (&fake.World{}).Open(backend.Pool{ID: events.NewID(), Path: "/pool"})
	if err != nil {
		t.Fatal(err)
	}
	b := traced.Backend(inner)
	ctx, request := trace.Begin(t.Context(), "", "request")
	contract := reflect.TypeFor[backend.Backend]()
	for i := range contract.NumMethod() {
		m := contract.Method(i)
		if m.Type.NumIn() == 0 || m.Type.In(0) != reflect.TypeFor[context.Context]() {
			continue
		}
		args := []reflect.Value{reflect.ValueOf(ctx)}
		for j := 1; j < m.Type.NumIn(); j++ {
			args = append(args, reflect.Zero(m.Type.In(j)))
		}
		before := len(spans.Ended())
		reflect.ValueOf(b).MethodByName(m.Name).Call(args)
		ended := spans.Ended()[before:]
		if len(ended) != 1 || ended[0].Name() != "storage "+m.Name {
			t.Fatalf("%s makes %d spans", m.Name, len(ended))
		}
		if ended[0].Status().Code != codes.Error { // there is no such pool, nor such a volume
			t.Errorf("%s ended with %v", m.Name, ended[0].Status())
		}
	}
	request.Done("OK")
}
