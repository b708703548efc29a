package serve

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"horcrux/pkg/problem"
)

const (
	fenceLimit = 10 * time.Second // longer than any transaction of ours
	fenceTime  = 2 * time.Second  // for the question
)

// fence fails while somebody's transaction keeps recorded events from all readers.
func (s *server) fence(ctx context.Context) error {
	lag, holder, err := s.store.Fence(ctx)
	if err != nil || lag < fenceLimit {
		return err
	}
	return problem.New(problem.Unavailable, "events of the last %s are kept from readers by %s", lag.Round(time.Second), holder)
}

// fenceLag is the metric of the same; NaN while it is not known.
func (s *server) fenceLag() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "horcrux_fence_lag_seconds",
		Help: "Age of the oldest recorded event that readers may not see yet, since a transaction in the Postgres cluster goes on.",
	}, func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), fenceTime)
		defer cancel()
		lag, _, err := s.store.Fence(ctx)
		if err != nil {
			return math.NaN()
		}
		return lag.Seconds()
	})
}
