package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"horcrux/pkg/eventstore/chain"
	"horcrux/pkg/pgserver/pgtest"
)

// jsonb keeps neither the order of keys nor the spelling of numbers; the canonical form of what it gives back is the
// one that went in.
func TestJSONBKeepsTheCanonicalForm(t *testing.T) {
	conn := connect(t, pgtest.Database(t))
	same := func(ctx context.Context, fatal func(string, ...any), in []byte) {
		before, err := chain.Canonical(in)
		if err != nil {
			fatal("%s: %v", in, err)
		}
		var stored []byte
		if err := conn.QueryRow(ctx, "SELECT $1::jsonb", before).Scan(&stored); err != nil {
			fatal("%s: %v", in, err)
		}
		after, err := chain.Canonical(stored)
		if err != nil || !bytes.Equal(before, after) {
			fatal("%s went in as %s, came back as %s, %v", in, before, after, err)
		}
	}
	for _, in := range []string{
		`0`, `-0`, `-0.0`, `1e2`, `1.10`, `5e-324`, `2.2250738585072014e-308`, `1.7976931348623157e308`, `9007199254740992`,
		`0.1`, `0.30000000000000004`, `1e21`, `1e-7`, `123456789.123456789`, `"ü\ud83d\ude00\u001f\\"`, `{"":{"b":[],"a":{}}}`,
		`{"\u20ac":1,"\r":2,"1":3,"\u0080":4,"\ud83d\ude00":5,"\ufb33":6}`,
	} {
		same(t.Context(), t.Fatalf, []byte(in))
	}

	number := rapid.Float64Range(-1e308, 1e308) // stays in range when it is rounded up
	text := rapid.StringOf(rapid.Rune().Filter(func(r rune) bool { return r != 0 && r != '\uFFFD' }))
	rapid.Check(t, func(t *rapid.T) {
		doc := map[string]any{
			"number": number.Draw(t, "number"), "integer": rapid.Int64Range(-1<<53, 1<<53).Draw(t, "integer"),
			"spelled": json.Number(strconv.FormatFloat(number.Draw(t, "spelled"), 'e', rapid.IntRange(0, 20).Draw(t, "digits"), 64)),
			"object":  rapid.MapOf(text, number).Draw(t, "object"), "list": rapid.SliceOf(text).Draw(t, "list"),
		}
		in, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		same(t.Context(), t.Fatalf, in)
	})
}
