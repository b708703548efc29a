package engine_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/trace"
)

const (
	traceID     = "4bf92f3577b34da6a3ce929d0e0e4736"
	requestSpan = "00f067aa0ba902b7"
)

// tracedBench records spans and keeps the log.
func tracedBench(t *testing.T) (*bench, *tracetest.SpanRecorder, *said) {
	t.Helper()
	spans := tracetest.NewSpanRecorder()
	trace.Record(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	t.Cleanup(func() { trace.Record(nil) })
	b, log := newBench(t), &said{}
	b.stop()
	b.log = slog.New(trace.Handler(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	b.traceparent = "00-" + traceID + "-" + requestSpan + "-01"
	b.run()
	return b, spans, log
}

// named are the spans of a name that have ended.
func named(r *tracetest.SpanRecorder, name string) (found []sdk.ReadOnlySpan) {
	for _, s := range r.Ended() {
		if s.Name() == name {
			found = append(found, s)
		}
	}
	return found
}

func TestTrace(t *testing.T) {
	t.Run("of an effect, its attempts, and who takes it up after an end", func(t *testing.T) {
		b, spans, log := tracedBench(t)
		b.world.set("robot.walk", engine.ErrAgain)
		op := b.ask("walk", events.NewID())
		b.eventually(func() bool { return len(named(spans, "effect robot.walk")) > 1 }, func() string { return "not tried again" })
		b.stop()
		before := len(named(spans, "effect robot.walk"))
		b.world.set("robot.walk", nil)
		b.run()
		b.until(op, operation.StateSucceeded)
		b.stop()

		decisions, effects := named(spans, "decide robot.walk"), named(spans, "effect robot.walk")
		if len(decisions) != 1 || decisions[0].Parent().SpanID().String() != requestSpan || decisions[0].SpanContext().TraceID().String() != traceID {
			t.Fatalf("%d decisions, %v", len(decisions), decisions)
		}
		if len(effects) != before+1 {
			t.Errorf("%d attempts after the end", len(effects)-before)
		}
		for n, e := range effects {
			if e.Parent().SpanID() != decisions[0].SpanContext().SpanID() {
				t.Errorf("attempt %d is not below the decision", n)
			}
			if want := map[bool]string{true: "", false: "try again"}[n == len(effects)-1]; e.Status().Description != want {
				t.Errorf("attempt %d ended with %q", n, e.Status().Description)
			}
		}
		for _, msg := range []string{"decided", "effect is tried again", "effect came about"} {
			r := log.record(t, msg)
			if r["trace"] != traceID || r["operation"] != op.String() {
				t.Errorf("%v", r)
			}
		}
	})
	t.Run("of the steps of a process, here and in another service", func(t *testing.T) {
		b, spans, _ := tracedBench(t)
		b.until(b.ask("build", events.NewID()), operation.StateSucceeded)
		b.stop()
		first := named(spans, "decide robot.build")
		if len(first) != 1 {
			t.Fatalf("%d decisions", len(first))
		}
		steps := 0
		for _, s := range spans.Ended() {
			if s.SpanContext().TraceID().String() != traceID {
				t.Errorf("%s is in another trace", s.Name())
			}
			if strings.HasPrefix(s.Name(), "decide part.") {
				if steps++; s.Parent().SpanID() != first[0].SpanContext().SpanID() {
					t.Errorf("%s is not below the decision that planned it", s.Name())
				}
			}
		}
		if steps == 0 {
			t.Error("no step is in the trace")
		}
	})
	t.Run("goes on where nobody records", func(t *testing.T) {
		b, _, _ := tracedBench(t)
		trace.Record(nil)
		id := events.NewID()
		b.until(b.ask("walk", id), operation.StateSucceeded)
		h, err := b.store.Store.Load(t.Context(), events.NewStream("robot", id))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range h[0].Events {
			if e.Meta.Traceparent != b.traceparent {
				t.Errorf("%s has %q", e.Type, e.Meta.Traceparent)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	b := newBench(t)
	b.world.set("robot.walk", engine.ErrAgain)
	op := b.ask("walk", events.NewID())
	b.eventually(func() bool { return b.world.count("robot.walk") > 1 }, func() string { return "not tried again" })
	b.world.set("robot.walk", nil)
	b.until(op, operation.StateSucceeded)
	b.stop()
	r := prometheus.NewRegistry()
	r.MustRegister(b.metrics)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := f.GetName()
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	const again = "horcrux_effect_attempts_total robots again robot.walk"
	for name, want := range map[string]float64{
		"horcrux_commands_total robots accepted robot.walk":         1,
		"horcrux_command_decision_duration_seconds robots":          1,
		"horcrux_effect_attempts_total robots done robot.walk":      1,
		"horcrux_effects_running robots robot.walk":                 0,
		"horcrux_effect_attempt_duration_seconds robots robot.walk": 1 + got[again],
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if got[again] < 1 {
		t.Errorf("no attempt failed: %v", got)
	}
}

// said keeps a log.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

// record is the first of a message.
func (s *said) record(t *testing.T, msg string) map[string]any {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(s.b.String()) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r["msg"] == msg {
			return r
		}
	}
	t.Fatalf("nothing says %q in\n%s", msg, &s.b)
	return nil
}
