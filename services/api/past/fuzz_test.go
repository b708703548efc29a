package past_test

import (
	"testing"

	"horcrux/pkg/problem"
	"horcrux/services/api/past"
)

func FuzzParsePoint(f *testing.F) {
	for _, text := range []string{"", "AAcB", "2026-01-01T00:00:00Z", "2026-01-01T00:00:00.123456789+01:00", "now", "0000-01-01T00:00:00Z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := past.ParsePoint("query.at", text)
		switch {
		case err != nil && problem.From(err) == nil:
			t.Errorf("%v is no problem", err)
		case err == nil && p == past.Point{}:
			t.Errorf("%q is taken for now", text)
		case err == nil && !p.Position.IsZero() && p.Position.String() != text:
			t.Errorf("%q is %q", text, p.Position)
		}
	})
}
