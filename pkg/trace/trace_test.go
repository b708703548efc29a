package trace_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
)

const (
	id     = "4bf92f3577b34da6a3ce929d0e0e4736"
	caller = "00f067aa0ba902b7"
	parent = "00-" + id + "-" + caller + "-01"
)

// record has spans recorded for as long as the test lasts.
func record(t *testing.T) *tracetest.SpanRecorder {
	t.Helper()
	r := tracetest.NewSpanRecorder()
	trace.Record(sdk.NewTracerProvider(sdk.WithSpanProcessor(r)))
	t.Cleanup(func() { trace.Record(nil) })
	return r
}

func TestBegin(t *testing.T) {
	for what, c := range map[string]struct{ traceparent, want string }{
		"the caller's":               {parent, id},
		"the caller's, not recorded": {"00-" + id + "-" + caller + "-00", id},
		"of a later version":         {"42-" + id + "-" + caller + "-01-more", id},
		"without one":                {"", ""},
		"that is none":               {"00-" + strings.Repeat("0", 32) + "-" + caller + "-01", ""},
		"that is nonsense":           {"\x00" + strings.Repeat("9", 1000), ""},
	} {
		for _, recorded := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, recorded: %t", what, recorded), func(t *testing.T) {
				if recorded {
					record(t)
				}
				ctx, span := trace.Begin(t.Context(), c.traceparent, "GET /api/vms")
				defer span.Done("OK")
				got := trace.ID(ctx)
				if len(got) != 32 || c.want != "" && got != c.want {
					t.Errorf("trace %q, want %q", got, c.want)
				}
				if again, _ := trace.Begin(t.Context(), c.traceparent, "GET /api/vms"); c.want == "" && trace.ID(again) == got {
					t.Error("two requests have one id")
				}
				// What follows from it elsewhere is in the same trace.
				if later := trace.ID(trace.Continue(context.Background(), trace.Parent(ctx))); later != got {
					t.Errorf("continued as %q, want %q", later, got)
				}
			})
		}
	}
}

func TestSpans(t *testing.T) {
	r := record(t)
	op := uuid.New()
	ctx, request := trace.Begin(t.Context(), parent, "POST /api/vms/:id/start")
	_ = trace.Operation(ctx, op)
	far := trace.Continue(context.Background(), trace.Parent(ctx)) // another process
	far, decision := trace.Start(far, trace.Consumer, "decide vm.start", "horcrux.command", "1")
	_, effect := trace.Start(far, trace.Internal, "effect vm.start")
	effect.End(fmt.Errorf("password=secret: %w", context.DeadlineExceeded))
	decision.Done("accepted")
	request.Done("Accepted")
	_, nobody := trace.Start(t.Context(), trace.Client, "what nobody asked for")
	nobody.Done("ok")

	spans := r.Ended()
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	e, d, q := spans[0], spans[1], spans[2]
	if q.Parent().SpanID().String() != caller || d.Parent().SpanID() != q.SpanContext().SpanID() || e.Parent().SpanID() != d.SpanContext().SpanID() {
		t.Errorf("parents: request %s, decision %s, effect %s", q.Parent().SpanID(), d.Parent().SpanID(), e.Parent().SpanID())
	}
	for _, s := range spans {
		if s.SpanContext().TraceID().String() != id {
			t.Errorf("%s is in trace %s", s.Name(), s.SpanContext().TraceID())
		}
		if text := fmt.Sprint(s.Attributes(), s.Events(), s.Status()); strings.Contains(text, "secret") {
			t.Errorf("%s tells %s", s.Name(), text)
		}
	}
	if e.Status().Code != codes.Error || e.Status().Description != "context deadline exceeded" || d.Status().Code == codes.Error {
		t.Errorf("effect %v, decision %v", e.Status(), d.Status())
	}
	if text := fmt.Sprint(q.Attributes()); !strings.Contains(text, op.String()) {
		t.Errorf("the request does not name its operation: %s", text)
	}
}

func TestEndInAWord(t *testing.T) {
	known := errors.New("busy")
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("the daemon says: %w", known), "busy"},
		{context.Canceled, "context canceled"},
		{fmt.Errorf("%w: text", problem.New(problem.NotFound, "text")), "not_found"},
		{errors.New("text"), "failed"},
	} {
		r := record(t)
		_, s := trace.Begin(t.Context(), "", "x")
		s.End(c.err, known)
		if got := r.Ended()[0].Status().Description; got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}

func TestHandler(t *testing.T) {
	op := uuid.New()
	within := trace.Operation(trace.Continue(t.Context(), parent), op)
	for what, c := range map[string]struct {
		ctx  context.Context
		want map[string]any
	}{
		"within an operation": {within, map[string]any{"trace": id, "operation": op.String()}},
		"within a request":    {trace.Continue(t.Context(), parent), map[string]any{"trace": id}},
		"by itself":           {trace.Operation(t.Context(), uuid.Nil), map[string]any{}},
	} {
		t.Run(what, func(t *testing.T) {
			var out bytes.Buffer
			log := slog.New(trace.Handler(slog.NewJSONHandler(&out, nil))).With("part", "compute")
			log.InfoContext(c.ctx, "said", "n", 1)
			var got map[string]any
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v: %s", err, &out)
			}
			for _, key := range []string{"trace", "operation"} {
				if got[key] != c.want[key] {
					t.Errorf("%s is %v, want %v", key, got[key], c.want[key])
				}
			}
			if got["part"] != "compute" || got["n"] != 1.0 {
				t.Errorf("lost: %s", &out)
			}
		})
	}
}

// BenchmarkUnrecorded is all that an operation costs where nobody records: a request, its decision, an effect and a call
// of the driver.
func BenchmarkUnrecorded(b *testing.B) {
	op := uuid.New()
	b.ReportAllocs()
	for b.Loop() {
		ctx, request := trace.Begin(b.Context(), "", "POST /api/vms/:id/start", "http.request.method", "POST", "http.route", "/api/vms/:id/start")
		parent := trace.Parent(ctx)
		decided, decision := trace.Start(trace.Continue(b.Context(), parent), trace.Consumer, "decide", "horcrux.command", "1")
		_ = trace.Operation(decided, op)
		begun, effect := trace.Start(trace.Operation(trace.Continue(b.Context(), parent), op), trace.Internal, "effect")
		_, call := trace.Start(begun, trace.Client, "hypervisor Start")
		call.End(nil)
		effect.End(nil)
		decision.Done("accepted")
		request.Done("Accepted")
	}
}
