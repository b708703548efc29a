// Package trace follows a request through all that it brings about, in any process and also after a crash: by the trace
// id of the W3C recommendation, which each request has from its caller or gets from the gateway, and which travels in the
// meta data of commands and events. The id is in logs and problems always. Spans are recorded where a process was told
// to (Record), and cost next to nothing where it was not.
package trace

import (
	"context"
	"crypto/rand"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/propagation"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// Continue makes ctx part of the trace that a traceparent names. One that names none leaves ctx as it is.
func Continue(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, &carrier{traceparent})
}

// Begin is Continue for a request from outside, which is in a trace from here on in any case. Unless its name is "" it
// is a span.
func Begin(ctx context.Context, traceparent, name string, attributes ...string) (context.Context, Span) {
	ctx = Continue(ctx, traceparent)
	var span Span
	if t := recorder.Load(); t != nil && name != "" {
		ctx, span = start(ctx, *t, Server, name, attributes)
	}
	if oteltrace.SpanContextFromContext(ctx).IsValid() {
		return ctx, span
	}
	c := oteltrace.SpanContextConfig{TraceFlags: oteltrace.FlagsSampled}
	rand.Read(c.TraceID[:])
	rand.Read(c.SpanID[:])
	return oteltrace.ContextWithSpanContext(ctx, oteltrace.NewSpanContext(c)), span
}

// ID is the id of the trace that ctx belongs to, "" for none.
func ID(ctx context.Context) string {
	if c := oteltrace.SpanContextFromContext(ctx); c.HasTraceID() {
		return c.TraceID().String()
	}
	return ""
}

// Parent is the traceparent for what ctx brings about elsewhere or later, "" for none.
func Parent(ctx context.Context) string {
	var c carrier
	propagation.TraceContext{}.Inject(ctx, &c)
	return c.traceparent
}

// carrier carries a traceparent and nothing else: events have no place for a tracestate.
type carrier struct{ traceparent string }

const header = "traceparent"

func (c *carrier) Keys() []string { return []string{header} }

func (c *carrier) Get(key string) string {
	if key == header {
		return c.traceparent
	}
	return ""
}

func (c *carrier) Set(key, value string) {
	if key == header {
		c.traceparent = value
	}
}

type operationKey struct{}

// Operation says which operation is dealt with within ctx, for the log and the current span. uuid.Nil says nothing.
func Operation(ctx context.Context, id uuid.UUID) context.Context {
	if id == uuid.Nil {
		return ctx
	}
	if s := oteltrace.SpanFromContext(ctx); s.IsRecording() {
		s.SetAttributes(attribute("horcrux.operation", id.String()))
	}
	return context.WithValue(ctx, operationKey{}, id)
}
