package otlp

import (
	"context"
	"log/slog"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/trace"
)

// delivery is an exporter that is watched: it counts what becomes of spans, says in the log when they begin or cease to
// be taken, and can be cut off.
type delivery struct {
	sdk.SpanExporter
	log     *slog.Logger
	spans   *prometheus.CounterVec
	waiting atomic.Int64
	failing bool // of the one goroutine that exports
	over    context.Context
	giveUp  context.CancelFunc
}

func newDelivery(to sdk.SpanExporter, log *slog.Logger) *delivery {
	d := &delivery{SpanExporter: to, log: log, spans: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "horcrux_trace_spans_total", Help: "Spans by what became of them: exported, failed, or dropped since too many waited.",
	}, []string{"outcome"})}
	for _, outcome := range []string{"exported", "failed", "dropped"} {
		d.spans.WithLabelValues(outcome)
	}
	d.over, d.giveUp = context.WithCancel(context.Background())
	return d
}

func (d *delivery) Describe(c chan<- *prometheus.Desc) { d.spans.Describe(c) }

func (d *delivery) Collect(c chan<- prometheus.Metric) { d.spans.Collect(c) }

// ExportSpans implements sdk.SpanExporter. It tells of failures itself.
func (d *delivery) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.over, cancel)()
	err := d.SpanExporter.ExportSpans(ctx, spans)
	n := len(spans)
	d.waiting.Add(-int64(n))
	outcome := "exported"
	if err != nil {
		outcome = "failed"
	}
	d.spans.WithLabelValues(outcome).Add(float64(n))
	switch {
	case err != nil && !d.failing:
		d.log.Warn("spans are not delivered; this is said once", "err", err)
	case err == nil && d.failing:
		d.log.Info("spans are delivered again")
	}
	d.failing = err != nil
	return nil
}

// processor queues spans for the exporter, as many as there is room for.
func (d *delivery) processor() sdk.SpanProcessor {
	return bounded{d, sdk.NewBatchSpanProcessor(d,
		sdk.WithMaxQueueSize(queueSize), sdk.WithMaxExportBatchSize(batchSize), sdk.WithExportTimeout(sendTime))}
}

// bounded drops spans, and counts them, before the queue would do so without a word.
type bounded struct {
	*delivery
	sdk.SpanProcessor
}

func (b bounded) OnEnd(s sdk.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return
	}
	if b.waiting.Add(1) > queueSize {
		b.waiting.Add(-1)
		b.spans.WithLabelValues("dropped").Inc()
		return
	}
	b.SpanProcessor.OnEnd(s)
}

// Shutdown is the processor's, which shuts the exporter down.
func (b bounded) Shutdown(ctx context.Context) error { return b.SpanProcessor.Shutdown(ctx) }
