package serve

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// askTime bounds a question that the metrics ask.
const askTime = 2 * time.Second

// asked is a gauge that is asked for when somebody reads it; NaN while it is not known.
func asked(name, help string, ask func(context.Context) (float64, error)) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), askTime)
		defer cancel()
		v, err := ask(ctx)
		if err != nil {
			return math.NaN()
		}
		return v
	})
}

func (s *server) fenceLag() prometheus.Collector {
	return asked("horcrux_fence_lag_seconds",
		"Age of the oldest recorded event that readers may not see yet, since a transaction in the Postgres cluster goes on.",
		func(ctx context.Context) (float64, error) {
			lag, _, err := s.store.Fence(ctx)
			return lag.Seconds(), err
		})
}

func (s *server) deadLetters() prometheus.Collector {
	return asked("horcrux_dead_letters", "Commands that no service could handle and that wait for somebody to look at them.",
		func(ctx context.Context) (float64, error) {
			n, err := s.bus.CountDeadLetters(ctx)
			return float64(n), err
		})
}

// relayLag is NaN in a process that does not lead.
func (s *server) relayLag() prometheus.Collector {
	return asked("horcrux_relay_lag_seconds", "Since when the relay has not been at the end of the log; NaN where another process relays.",
		func(context.Context) (float64, error) {
			st := s.relay.Status()
			if !st.Leading {
				return math.NaN(), nil
			}
			return st.Lag.Seconds(), nil
		})
}
