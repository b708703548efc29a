package engine

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/eventstore"
)

// Metrics counts what engines do. Its labels are domains and types of commands that the services know.
type Metrics struct {
	commands *prometheus.CounterVec
	deciding *prometheus.HistogramVec
	running  *prometheus.GaugeVec
	attempts *prometheus.CounterVec
	effects  *prometheus.HistogramVec
}

// NewMetrics returns metrics that are zero and registered nowhere.
func NewMetrics() *Metrics {
	return &Metrics{
		commands: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horcrux_commands_total", Help: "Commands by what came of them: accepted, rejected, repeated, or failed to be decided this time.",
		}, []string{"domain", "type", "outcome"}),
		deciding: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "horcrux_command_decision_duration_seconds", Help: "Time to decide a command and to record that.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 3, 9),
		}, []string{"domain"}),
		running: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "horcrux_effects_running", Help: "Effects of which an attempt is under way.",
		}, []string{"domain", "type"}),
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "horcrux_effect_attempts_total", Help: "Attempts at effects by how they ended: done, again, failed, or cut off.",
		}, []string{"domain", "type", "outcome"}),
		effects: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "horcrux_effect_attempt_duration_seconds", Help: "Time of one attempt at an effect.",
			Buckets: prometheus.ExponentialBuckets(0.002, 3, 11),
		}, []string{"domain", "type"}),
	}
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(c chan<- *prometheus.Desc) {
	for _, v := range m.all() {
		v.Describe(c)
	}
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(c chan<- prometheus.Metric) {
	for _, v := range m.all() {
		v.Collect(c)
	}
}

func (m *Metrics) all() []prometheus.Collector {
	return []prometheus.Collector{m.commands, m.deciding, m.running, m.attempts, m.effects}
}

// failed is the outcome of a command that is not decided. Its type may be anything.
const failed = "failed"

// decided is the outcome of a command.
func decided(r eventstore.Result, err error) string {
	switch {
	case err != nil:
		return failed
	case r.Duplicate:
		return "repeated"
	case r.Outcome.Rejection != nil:
		return "rejected"
	}
	return "accepted"
}

func (m *Metrics) decided(domain, command, outcome string, took time.Duration) {
	if outcome == failed {
		command = ""
	}
	m.commands.WithLabelValues(domain, command, outcome).Inc()
	m.deciding.WithLabelValues(domain).Observe(took.Seconds())
}

// attempt counts one attempt at an effect, whose end is to be told.
func (m *Metrics) attempt(domain, effect string) (ended func(error)) {
	running, begun := m.running.WithLabelValues(domain, effect), time.Now()
	running.Inc()
	return func(err error) {
		outcome := "failed"
		switch {
		case err == nil:
			outcome = "done"
		case errors.Is(err, context.Canceled):
			outcome = "cut off"
		case errors.Is(err, ErrAgain):
			outcome = "again"
		}
		running.Dec()
		m.attempts.WithLabelValues(domain, effect, outcome).Inc()
		m.effects.WithLabelValues(domain, effect).Observe(time.Since(begun).Seconds())
	}
}
