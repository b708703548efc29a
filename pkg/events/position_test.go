package events_test

import (
	"encoding/json"
	"errors"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"horcrux/pkg/events"
)

var positions = rapid.Custom(func(t *rapid.T) events.Position {
	return events.Position{
		Era: rapid.Int16Min(0).Draw(t, "era"), Tx: rapid.Uint64().Draw(t, "tx"), Seq: rapid.Int64Min(0).Draw(t, "seq"),
	}
})

func TestPositionGolden(t *testing.T) {
	for text, p := range map[string]events.Position{
		"":                               {},
		"AAcB":                           {Tx: 7, Seq: 1},
		"AQAA":                           {Era: 1},
		"AKwCAQ":                         {Tx: 300, Seq: 1},
		"__8B____________Af__________fw": {Era: math.MaxInt16, Tx: math.MaxUint64, Seq: math.MaxInt64},
	} {
		if p.String() != text {
			t.Errorf("%+v is %q, want %q", p, p.String(), text)
		}
		if got, err := events.ParsePosition(text); err != nil || got != p {
			t.Errorf("%q is %+v, %v", text, got, err)
		}
		if p.IsZero() != (text == "") {
			t.Errorf("%+v: IsZero is %t", p, p.IsZero())
		}
	}
}

func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := positions.Draw(t, "p")
		if got, err := events.ParsePosition(p.String()); err != nil || got != p {
			t.Fatalf("%q is read as %+v, %v", p, got, err)
		}
		doc, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got events.Position
		if err := json.Unmarshal(doc, &got); err != nil || got != p {
			t.Fatalf("%s is read as %+v, %v", doc, got, err)
		}
	})
}

func TestPositionOrder(t *testing.T) {
	ordered := []events.Position{
		{}, {Seq: 1}, {Seq: math.MaxInt64}, {Tx: 1}, {Tx: 1, Seq: 9}, {Tx: 2, Seq: 1}, {Tx: math.MaxUint64}, {Era: 1}, {Era: 1, Tx: 1, Seq: 1},
	}
	for i, p := range ordered {
		for j, q := range ordered {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := p.Compare(q); got != want {
				t.Errorf("%+v to %+v: %d, want %d", p, q, got, want)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(positions, 3, 3).Draw(t, "positions")
		slices.SortFunc(ps, events.Position.Compare)
		if ps[0].Compare(ps[2]) > 0 || ps[2].Compare(ps[0]) < 0 || (ps[0].Compare(ps[1]) == 0) != (ps[0] == ps[1]) {
			t.Fatalf("no order: %+v", ps)
		}
	})
}

// strange texts are no positions: of a wrong alphabet, padded, cut, overlong or beyond what a field holds.
var strange = []string{
	" ", "AAcB ", "AAcB\n", "\nAAcB", "AA+B", "AA/B", "AAcB====", "AQAA=", "A", "AAc", "AAcBAA", // alphabet, length
	"AAAA",              // the begin has one text, which is empty
	"AKyCAAE", "gAAHAQ", // a number in more bytes than it needs
	"gIACBwE",                   // era 32768
	"AAeAgICAgICAgIAB",          // seq over 63 bits
	"AP___________wIB",          // tx over 64 bits
	"AAcC_", "AQAB_w", "AKwCAR", // bits that say nothing
	"0/16B3748", "1", "null", "é", "\x00",
}

func TestParsePositionIsStrict(t *testing.T) {
	for _, text := range strange {
		if p, err := events.ParsePosition(text); !errors.Is(err, events.ErrPosition) || !p.IsZero() {
			t.Errorf("%q is read as %+v, %v", text, p, err)
		}
		p := events.Position{Tx: 7, Seq: 1}
		if err := p.UnmarshalText([]byte(text)); !errors.Is(err, events.ErrPosition) || p != (events.Position{Tx: 7, Seq: 1}) {
			t.Errorf("%q is read into %+v, %v", text, p, err)
		}
	}
}

// FuzzParsePosition: whatever is read is written as the same text, and in its range.
func FuzzParsePosition(f *testing.F) {
	for _, p := range []events.Position{{}, {Tx: 7, Seq: 1}, {Era: 1}, {Era: math.MaxInt16, Tx: math.MaxUint64, Seq: math.MaxInt64}} {
		f.Add(p.String())
	}
	for _, text := range strange {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := events.ParsePosition(text)
		if err != nil {
			if !errors.Is(err, events.ErrPosition) || !p.IsZero() {
				t.Fatalf("%q: %+v, %v", text, p, err)
			}
			return
		}
		if p.String() != text || p.Era < 0 || p.Seq < 0 {
			t.Fatalf("%q is %+v, which is written as %q", text, p, p)
		}
	})
}
