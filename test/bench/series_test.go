package main

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
)

func TestQuantileIsTheNearestRank(t *testing.T) {
	hundred := series{values: make([]float64, 100)}
	for i := range hundred.values {
		hundred.values[99-i] = float64(i + 1)
	}
	for q, want := range map[float64]float64{0: 1, 0.5: 50, 0.95: 95, 0.99: 99, 1: 100} {
		if got := hundred.quantile(q); got != want {
			t.Errorf("quantile %v: %v, want %v", q, got, want)
		}
	}
	if one := (series{values: []float64{7}}); one.p50() != 7 || one.p99() != 7 {
		t.Error("of one value every quantile is that value")
	}
	if !math.IsNaN((series{}).p50()) {
		t.Error("an empty series has no quantile")
	}
	if hundred.values[0] != 100 {
		t.Error("asking for a quantile reordered the series")
	}
}

func TestInterleaveTakesTurns(t *testing.T) {
	var order []string
	of := func(name string) side {
		return side{name: name, unit: ms, run: func(_ context.Context, turn int) (float64, error) {
			order = append(order, name)
			return float64(turn), nil
		}}
	}
	got, err := interleave(t.Context(), 1, 2, of("a"), of("b"))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"a", "b", "b", "a", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	for _, s := range got {
		if !slices.Equal(s.values, []float64{1, 2}) {
			t.Errorf("%s has %v: the warm-up does not count, all else does", s.name, s.values)
		}
	}
}

func TestInterleaveEndsWithTheFirstFailure(t *testing.T) {
	broken, turns := errors.New("broken"), 0
	_, err := interleave(t.Context(), 0, 5, side{name: "a", run: func(context.Context, int) (float64, error) {
		turns++
		return 0, broken
	}})
	if !errors.Is(err, broken) || turns != 1 {
		t.Errorf("%v after %d turns", err, turns)
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		ratio ratio
		want  string
	}{
		{atMost("r", 1.1, 1.25, 1.12), "aim met"},
		{atMost("r", 1.2, 1.25, 1.12), "met"},
		{atMost("r", 1.3, 1.25, 1.12), "MISSED"},
		{atMost("r", 5, 5, 0), "met"},
		{atLeast("r", 0.9, 0.6, 0.8), "aim met"},
		{atLeast("r", 0.7, 0.6, 0.8), "met"},
		{atLeast("r", 0.5, 0.6, 0.8), "MISSED"},
		{atLeast("r", 9, 8, 0), "met"},
		{atMost("r", math.NaN(), 1, 0), "MISSED"},
		{reported("r", 3), ""},
	} {
		if got := c.ratio.verdict(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.ratio, got, c.want)
		}
	}
}
