package system_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"horcrux/pkg/openapi"
	"horcrux/test/instance"
)

const (
	createTrace = "0af7651916cd43dd8448eb211c80319c"
	startTrace  = "4bf92f3577b34da6a3ce929d0e0e4736"
	stopTrace   = "11112222333344445555666677778888"
	callerSpan  = "00f067aa0ba902b7"
)

func traceparent(trace string) []string {
	return []string{"Traceparent", "00-" + trace + "-" + callerSpan + "-01"}
}

// spanTime is how long a span may take to get to the collector on a busy machine.
const spanTime = 60 * time.Second

// TestTraces follows requests through spans, logs and metrics, with a collector, with one that does not answer, and
// across a crash.
func TestTraces(t *testing.T) {
	t.Parallel()
	c := startCollector(t)
	i := qemuInstance(t)
	i.Args = append(i.Args, "--log-level", "debug")
	i.Env = append(i.Env, "OTEL_BSP_SCHEDULE_DELAY=100")
	i.Start("OTEL_EXPORTER_OTLP_ENDPOINT=" + c.URL)
	i.Must("POST", "/api/vms", small("t1", map[string]any{"disks": []any{map[string]any{"size_gb": 1}}}), traceparent(createTrace)...)
	op := i.Must("POST", "/api/vms/t1/start", nil, traceparent(startTrace)...)

	i.Run(t, "one trace from the request to the driver", func(t *testing.T) {
		request := await(t, c, startTrace, "POST /api/vms/:id/start")
		decision := await(t, c, startTrace, "decide vm.start")
		effect := await(t, c, startTrace, "effect vm.start")
		call := await(t, c, startTrace, "hypervisor Start")
		if got := hex.EncodeToString(request.ParentSpanId); got != callerSpan {
			t.Errorf("the request is below %s, not the caller's span", got)
		}
		below(t, decision, request)
		below(t, effect, decision)
		below(t, call, effect)
		for span, kind := range map[*tracepb.Span]tracepb.Span_SpanKind{
			request: tracepb.Span_SPAN_KIND_SERVER, decision: tracepb.Span_SPAN_KIND_CONSUMER,
			effect: tracepb.Span_SPAN_KIND_INTERNAL, call: tracepb.Span_SPAN_KIND_CLIENT,
		} {
			if span.Kind != kind || span.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR {
				t.Errorf("%s is %v, and ended with %v", span.Name, span.Kind, span.Status)
			}
		}
		for _, span := range []*tracepb.Span{request, decision, effect} {
			if !strings.Contains(span.String(), op.ID.String()) {
				t.Errorf("%s does not name its operation", span.Name)
			}
		}
	})
	i.Run(t, "the steps of a process in another service", func(t *testing.T) {
		first := await(t, c, createTrace, "decide vm.create")
		below(t, await(t, c, createTrace, "decide volume.create"), first)
		below(t, await(t, c, createTrace, "storage Create"), await(t, c, createTrace, "effect volume.create"))
		below(t, await(t, c, createTrace, "effect vm.define"), first)
		below(t, await(t, c, createTrace, "hypervisor Define"), await(t, c, createTrace, "effect vm.define"))
	})
	i.Run(t, "logs", func(t *testing.T) {
		for what, want := range map[string]map[string]any{
			"request":  {"msg": "answered", "route": "startVM"},
			"decision": {"msg": "decided", "type": "vm.start", "outcome": "accepted"},
			"effect":   {"msg": "effect came about", "intent": "vm.start"},
		} {
			want["trace"], want["operation"] = startTrace, op.ID.String()
			if !logged(t, i.Log(), want) {
				t.Errorf("%s: no line of the log has %v in\n%s", what, want, i.Log())
			}
		}
	})
	i.Run(t, "a problem names its trace", func(t *testing.T) {
		id := strings.Repeat("ab", 16)
		var p openapi.Problem
		a := i.Do("POST", "/api/vms/nobody/start", nil, traceparent(id)...)
		if err := json.Unmarshal(a.Bytes, &p); err != nil || p.Trace == nil || *p.Trace != id {
			t.Errorf("%v %s", err, a.Bytes)
		}
	})
	i.Run(t, "the dashboard", func(t *testing.T) { dashboard(t, i) })
	i.Run(t, "an effect taken up after a crash", func(t *testing.T) {
		i.Stop()
		i.Start("OTEL_EXPORTER_OTLP_ENDPOINT="+c.URL, "HORCRUX_CRASHPOINT=after-effect:vm.stop", "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
		const key = "stop-once"
		_, _ = i.Try("POST", "/api/vms/t1/stop", nil, append(traceparent(stopTrace), "Idempotency-Key", key)...) // answered or not
		i.Died()
		i.Start("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + c.URL + "/v1/traces") // the other way to name it
		i.Must("POST", "/api/vms/t1/stop", nil, "Idempotency-Key", key)
		effect := await(t, c, stopTrace, "effect vm.stop")
		below(t, await(t, c, stopTrace, "hypervisor Destroy"), effect)
		if len(effect.ParentSpanId) == 0 || hex.EncodeToString(effect.ParentSpanId) == callerSpan {
			t.Errorf("its parent is %x, not the decision", effect.ParentSpanId)
		}
	})
	i.Run(t, "a collector that does not answer holds nothing up", func(t *testing.T) {
		i.Stop()
		i.Start("OTEL_EXPORTER_OTLP_ENDPOINT=" + silentCollector(t).URL)
		for range 3 {
			i.Must("POST", "/api/vms/t1/start", nil)
			i.Must("POST", "/api/vms/t1/stop", nil)
		}
		failed := regexp.MustCompile(`(?m)^horcrux_trace_spans_total\{outcome="failed"\} [1-9]`)
		instance.Eventually(t, spanTime, "lost spans are counted", func() bool {
			return failed.Match(i.Do("GET", "/metrics", nil).Bytes)
		})
		if n := strings.Count(i.Log(), "spans are not delivered"); n != 1 {
			t.Errorf("the log says it %d times", n)
		}
		i.Stop() // fails when it takes long
	})
	if text := c.text(); strings.Contains(text, "hx_") || strings.Contains(strings.ToLower(text), "bearer") {
		t.Error("a span holds a token")
	}
}

// await waits for a span of a trace.
func await(t *testing.T, c *collector, trace, name string) *tracepb.Span {
	t.Helper()
	instance.Eventually(t, spanTime, "a span "+name+" of "+trace, func() bool { return len(c.find(trace, name)) > 0 })
	return c.find(trace, name)[0]
}

func below(t *testing.T, child, parent *tracepb.Span) {
	t.Helper()
	if string(child.ParentSpanId) != string(parent.SpanId) {
		t.Errorf("%s is below %x, not %s, which is %x", child.Name, child.ParentSpanId, parent.Name, parent.SpanId)
	}
}

// logged says whether a line has the values. What is logged is JSON, each record in a line of its own.
func logged(t *testing.T, log string, want map[string]any) bool {
	t.Helper()
	for line := range strings.Lines(log) {
		if strings.HasPrefix(line, "time=") {
			t.Fatalf("a record that is not JSON: %s", line)
		}
		if !strings.HasPrefix(line, "{") { // for the person who started it
			continue
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(line), &got); err != nil || got["time"] == nil || got["level"] == nil {
			t.Fatalf("not a record: %v %s", err, line)
		}
		all := true
		for k, v := range want {
			all = all && fmt.Sprint(got[k]) == fmt.Sprint(v)
		}
		if all {
			return true
		}
	}
	return false
}
