package trace

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	otelattribute "go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	oteltrace "go.opentelemetry.io/otel/trace"

	"horcrux/pkg/problem"
)

// Kind of a span.
type Kind = oteltrace.SpanKind

// The kinds.
const (
	Server   = oteltrace.SpanKindServer   // answers somebody's request
	Consumer = oteltrace.SpanKindConsumer // takes a message
	Client   = oteltrace.SpanKindClient   // calls something that is not ours
	Internal = oteltrace.SpanKindInternal
)

// recorder makes spans; nil makes none.
var recorder atomic.Pointer[oteltrace.Tracer]

// Record lets this process record spans, nil that it does no longer.
func Record(p oteltrace.TracerProvider) {
	if p == nil {
		recorder.Store(nil)
		return
	}
	t := p.Tracer("horcrux")
	recorder.Store(&t)
}

// Span is a part of a trace with a beginning and an end. The zero value is one that nobody records.
type Span struct{ otel oteltrace.Span }

// Start begins a span below the one of ctx, with attributes that are keys and values in turn and hold no secret. What is
// in no trace, since nobody asked for it, is no span.
func Start(ctx context.Context, kind Kind, name string, attributes ...string) (context.Context, Span) {
	t := recorder.Load()
	if t == nil || !oteltrace.SpanContextFromContext(ctx).IsValid() {
		return ctx, Span{}
	}
	return start(ctx, *t, kind, name, attributes)
}

func start(ctx context.Context, t oteltrace.Tracer, kind Kind, name string, attributes []string) (context.Context, Span) {
	all := make([]otelattribute.KeyValue, 0, len(attributes)/2)
	for i := 0; i+1 < len(attributes); i += 2 {
		all = append(all, attribute(attributes[i], attributes[i+1]))
	}
	ctx, s := t.Start(ctx, name, oteltrace.WithSpanKind(kind), oteltrace.WithAttributes(all...))
	return ctx, Span{s}
}

func attribute(key, value string) otelattribute.KeyValue { return otelattribute.String(key, value) }

// Recorded says whether anybody will see the span.
func (s Span) Recorded() bool { return s.otel != nil && s.otel.IsRecording() }

// Set adds an attribute.
func (s Span) Set(key, value string) {
	if s.otel != nil {
		s.otel.SetAttributes(attribute(key, value))
	}
}

// outcome is the attribute that says how a span ended.
const outcome = "horcrux.outcome"

// Done ends the span of what came to an outcome that is no failure: "accepted".
func (s Span) Done(how string) {
	if s.otel != nil {
		s.otel.SetAttributes(attribute(outcome, how))
		s.otel.End()
	}
}

// Fail ends the span of what failed, in a word: "unavailable".
func (s Span) Fail(how string) {
	if s.otel != nil {
		s.otel.SetStatus(codes.Error, how)
		s.Done(how)
	}
}

// End ends the span of a call. An error is told by the first of these that it is, or the code of its problem, and never
// by its text, in which there may be anything.
func (s Span) End(err error, known ...error) {
	switch {
	case s.otel == nil:
	case err == nil:
		s.Done("ok")
	default:
		s.Fail(word(err, known))
	}
}

func word(err error, known []error) string {
	for _, k := range slices.Concat(known, []error{context.Canceled, context.DeadlineExceeded}) {
		if errors.Is(err, k) {
			return k.Error()
		}
	}
	if p := problem.From(err); p != nil {
		return string(p.Code)
	}
	return "failed"
}
