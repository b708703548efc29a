// Package otlp sends the spans of this process to an OpenTelemetry collector, OTLP over HTTP. A collector that is slow or
// away costs spans and nothing else: they wait in a bounded queue, and what does not fit is counted.
package otlp

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const (
	queueSize = 2048             // spans that have ended and are not delivered
	batchSize = 512              // spans in one request
	sendTime  = 10 * time.Second // for one batch, repetitions included
	flushTime = 3 * time.Second  // for all that waits when the process ends
)

// Options of Start.
type Options struct {
	URL     string // where spans are posted
	Version string // of this program
	Node    string // id of this node
	Name    string // its label
	Log     *slog.Logger
}

// URL is where spans are posted: what is said of traces, else v1/traces below the endpoint, else "".
func URL(endpoint, traces string) (string, error) {
	if endpoint == "" || traces != "" {
		return traces, nil
	}
	return url.JoinPath(endpoint, "v1/traces")
}

// Exporter sends spans from Start to Stop. It is a prometheus.Collector.
type Exporter struct {
	*delivery
	provider *sdk.TracerProvider
}

// Start begins to export. It does not ask whether anybody listens. Headers, certificates and the like come from the
// standard OTEL_ variables.
func Start(ctx context.Context, o Options) (*Exporter, error) {
	client, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(o.URL))
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithAttributes(
		attribute.String("service.name", "horcrux"), attribute.String("service.version", o.Version),
		attribute.String("service.instance.id", o.Node), attribute.String("host.name", o.Name),
	), resource.WithFromEnv()) // last: it is stronger
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	// The library says on standard error what it has to say, which is not where a log of ours is.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { o.Log.Debug("tracing", "err", err) }))
	d := newDelivery(client, o.Log)
	return &Exporter{d, sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithSpanProcessor(d.processor()))}, nil
}

// Provider makes the tracers whose spans are sent.
func (x *Exporter) Provider() trace.TracerProvider { return x.provider }

// Stop sends what waits, for a moment, and gives up the rest.
func (x *Exporter) Stop(ctx context.Context) {
	timer := time.AfterFunc(flushTime, x.giveUp)
	defer timer.Stop()
	if err := x.provider.Shutdown(ctx); err != nil {
		x.log.Warn("end of the traces", "err", err)
	}
	x.giveUp()
}

var _ prometheus.Collector = (*Exporter)(nil)
