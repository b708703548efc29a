package postgres

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/eventstore"
)

// metrics of a store, which is a prometheus.Collector.
type metrics struct {
	appends  *prometheus.HistogramVec
	recorded prometheus.Counter
}

func newMetrics() metrics {
	return metrics{
		appends: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "horcrux_append_duration_seconds", Help: "Time of an append, by what came of it: recorded, repeated, refused or unavailable.",
			Buckets: prometheus.ExponentialBuckets(0.0002, 3, 10),
		}, []string{"outcome"}),
		recorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "horcrux_events_recorded_total", Help: "Events that this process has appended to the log.",
		}),
	}
}

// appended takes note of what came of an append, for the metrics and for Ready.
func (s *Store) appended(begun time.Time, r *eventstore.Result, err *error) {
	s.wrote(r.Duplicate, *err)
	outcome := "recorded"
	switch {
	case errors.Is(*err, eventstore.ErrUnavailable):
		outcome = "unavailable"
	case *err != nil:
		outcome = "refused"
	case r.Duplicate:
		outcome = "repeated"
	default:
		s.metrics.recorded.Add(float64(len(r.Events)))
	}
	s.metrics.appends.WithLabelValues(outcome).Observe(time.Since(begun).Seconds())
}

var (
	connections = prometheus.NewDesc("horcrux_postgres_connections", "Connections to Postgres by what they do: idle, used or opening.",
		[]string{"state"}, nil)
	most  = prometheus.NewDesc("horcrux_postgres_connections_max", "How many connections to Postgres this process opens at most.", nil, nil)
	waits = prometheus.NewDesc("horcrux_postgres_connection_waits_total", "How often somebody had to wait for a connection to Postgres.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *Store) Describe(c chan<- *prometheus.Desc) {
	s.metrics.appends.Describe(c)
	s.metrics.recorded.Describe(c)
	c <- connections
	c <- most
	c <- waits
}

// Collect implements prometheus.Collector.
func (s *Store) Collect(c chan<- prometheus.Metric) {
	s.metrics.appends.Collect(c)
	s.metrics.recorded.Collect(c)
	now := s.pool.Stat()
	for state, n := range map[string]int32{"idle": now.IdleConns(), "used": now.AcquiredConns(), "opening": now.ConstructingConns()} {
		c <- prometheus.MustNewConstMetric(connections, prometheus.GaugeValue, float64(n), state)
	}
	c <- prometheus.MustNewConstMetric(most, prometheus.GaugeValue, float64(now.MaxConns()))
	c <- prometheus.MustNewConstMetric(waits, prometheus.CounterValue, float64(now.EmptyAcquireCount()))
}
