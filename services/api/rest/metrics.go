package rest

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"horcrux/services/api/readmodel"
)

// metrics of the gateway. Labels are operations of the document and kinds, never what a caller sends.
type metrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	watchers prometheus.Gauge
	consoles *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer, model *readmodel.Model) *metrics {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horcrux_http_requests_total", Help: "Answered requests by operation and status.",
		}, []string{"operation", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "horcrux_http_request_duration_seconds", Help: "Time to the end of the answer, waiting included.",
			Buckets: prometheus.ExponentialBuckets(0.001, 3, 10),
		}, []string{"operation"}),
		watchers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "horcrux_event_streams", Help: "Open event streams.",
		}),
		consoles: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "horcrux_consoles", Help: "Open consoles of virtual machines.",
		}, []string{"console"}),
	}
	r.MustRegister(m.requests, m.duration, m.watchers, m.consoles, projections{model}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) answered(operation string, status int, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(operation).Observe(took.Seconds())
}

// projections tells how far behind the projections are, and which stand still.
type projections struct{ *readmodel.Model }

var halted = prometheus.NewDesc("horcrux_projection_halted", "1 when the projection of a kind met an event that it cannot fold.",
	[]string{"kind"}, nil)

var lag = prometheus.NewDesc("horcrux_projection_lag_seconds", "Since when the projection of a kind has not been at the end of the log.",
	[]string{"kind"}, nil)

func (projections) Describe(c chan<- *prometheus.Desc) {
	c <- halted
	c <- lag
}

func (p projections) Collect(c chan<- prometheus.Metric) {
	for _, s := range p.Status() {
		v := 0.0
		if s.Halted != nil {
			v = 1
		}
		c <- prometheus.MustNewConstMetric(halted, prometheus.GaugeValue, v, s.Kind)
		c <- prometheus.MustNewConstMetric(lag, prometheus.GaugeValue, s.Lag.Seconds(), s.Kind)
	}
}
