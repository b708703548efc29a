package main

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// series is what one side of a measurement gave, turn by turn.
type series struct {
	name   string
	unit   string
	values []float64
}

// quantile is the smallest value that a share q of all does not exceed; NaN of an empty series.
func (s series) quantile(q float64) float64 {
	if len(s.values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s.values))
	return sorted[min(max(int(math.Ceil(q*float64(len(sorted))))-1, 0), len(sorted)-1)]
}

func (s series) p50() float64 { return s.quantile(0.50) }
func (s series) p95() float64 { return s.quantile(0.95) }
func (s series) p99() float64 { return s.quantile(0.99) }

// side is one of the things that are compared. run does it once and returns what came of it in the side's unit; what
// shall not count, it does outside of what it measures.
type side struct {
	name string
	unit string
	run  func(ctx context.Context, turn int) (float64, error)
}

// interleave lets the sides take turns, so that whatever else the machine does meets all of them alike. Who begins
// moves on with each turn. The first warm turns do not count.
func interleave(ctx context.Context, warm, turns int, sides ...side) ([]series, error) {
	out := make([]series, len(sides))
	for i, s := range sides {
		out[i] = series{name: s.name, unit: s.unit, values: make([]float64, 0, turns)}
	}
	for turn := range warm + turns {
		for k := range sides {
			i := (turn + k) % len(sides)
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			v, err := sides[i].run(ctx, turn)
			if err != nil {
				return nil, fmt.Errorf("%s, turn %d: %w", sides[i].name, turn, err)
			}
			if turn >= warm {
				out[i].values = append(out[i].values, v)
			}
		}
	}
	return out, nil
}

const ms = "ms"

// millis is how long f takes, in milliseconds.
func millis(f func() error) (float64, error) {
	begin := time.Now()
	err := f()
	return inMillis(time.Since(begin)), err
}

func inMillis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
