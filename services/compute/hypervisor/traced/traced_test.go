package traced_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	wire "horcrux/pkg/events/network"
	"horcrux/pkg/trace"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/compute/hypervisor/traced"
	"horcrux/services/compute/network"
)

func record(t *testing.T) *tracetest.SpanRecorder {
	t.Helper()
	r := tracetest.NewSpanRecorder()
	trace.Record(sdk.NewTracerProvider(sdk.WithSpanProcessor(r)))
	t.Cleanup(func() { trace.Record(nil) })
	return r
}

// TestEveryCall calls each method of the interface: one that is added and not shown is found here.
func TestEveryCall(t *testing.T) {
	r := record(t)
	h := fake.New()
	inner := h.Driver()
	defer inner.Close()
	d := reflect.ValueOf(traced.Driver(inner))
	contract := reflect.TypeFor[hypervisor.Driver]()
	for i := range contract.NumMethod() {
		m := contract.Method(i)
		if m.Name == "Close" {
			continue
		}
		ctx, cancel := context.WithCancel(t.Context())
		ctx, request := trace.Begin(ctx, "", "request")
		before := len(r.Ended())
		args := []reflect.Value{reflect.ValueOf(ctx)}
		for j := 1; j < m.Type.NumIn(); j++ { // after the context
			args = append(args, reflect.Zero(m.Type.In(j)))
		}
		d.MethodByName(m.Name).Call(args)
		if ended := r.Ended()[before:]; len(ended) != 1 || ended[0].Name() != "hypervisor "+m.Name {
			t.Errorf("%s makes %d spans", m.Name, len(ended))
		}
		request.Done("OK")
		cancel()
	}
}

func TestOutcome(t *testing.T) {
	r := record(t)
	h := fake.New()
	inner := h.Driver()
	defer inner.Close()
	d := traced.Driver(inner)
	ctx, _ := trace.Begin(t.Context(), "", "request")
	id := uuid.New()
	if err := d.Start(ctx, id); err == nil {
		t.Fatal("it started what there is not")
	}
	s := r.Ended()[0]
	text := fmt.Sprint(s.Attributes())
	if s.Status().Description != "not found" || !strings.Contains(text, id.String()) {
		t.Errorf("%v %s", s.Status(), text)
	}
	if _, err := d.Domains(t.Context()); err != nil { // nobody asked
		t.Error(err)
	}
	if n := len(r.Ended()); n != 1 {
		t.Errorf("%d spans", n)
	}
}

// TestTransparent: the fake behaves behind it as it does.
func TestTransparent(t *testing.T) {
	record(t)
	h := fake.New()
	h.AddNetwork(network.Definition{ID: uuid.New(), Spec: wire.Spec{Name: "default"}}, true)
	lacks := map[drivertest.Capability]string{}
	for _, c := range []drivertest.Capability{
		drivertest.Break, drivertest.Hang, drivertest.Foreign, drivertest.Describe, drivertest.Crash, drivertest.Change, drivertest.Snapshot,
	} {
		lacks[c] = "tried on the fake itself"
	}
	drivertest.Run(t, drivertest.Harness{
		Open:  func(*testing.T) hypervisor.Driver { return traced.Driver(h.Driver()) },
		Burst: 10, Networks: []string{"default"}, Lacks: lacks,
	})
}
