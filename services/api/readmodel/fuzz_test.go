package readmodel

import (
	"testing"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// FuzzCursor: a sort order and a cursor are refused as problems, or are what a page can begin with.
func FuzzCursor(f *testing.F) {
	f.Add("name", cursor{Sort: "name", Keys: []string{"a"}}.String())
	f.Add("-created_at,name", cursor{Sort: "-created_at,name", Keys: []string{"2026-01-01T00:00:00Z", "a"}}.String())
	f.Add("state", cursor{Sort: "state", Keys: []string{`"running"`}}.String())
	f.Add("state", cursor{Sort: "state", Keys: []string{`"\u0000"`}}.String())
	f.Add("--name,,", "AAAA")
	f.Fuzz(func(t *testing.T, sort, text string) {
		keys, err := sortKeys(&vm.Resource, sort)
		if err != nil {
			if problem.From(err) == nil {
				t.Errorf("%v is no problem", err)
			}
			return
		}
		c, err := parseCursor(text, sort, keys)
		if err != nil {
			if problem.From(err) == nil {
				t.Errorf("%v is no problem", err)
			}
			return
		}
		if c.String() != text || len(c.Keys) != len(keys) {
			t.Errorf("%q is %+v", text, c)
		}
		var args []any
		after(keys, c, func(v any) string { args = append(args, v); return "$" })
		if len(args) != 1+len(keys) {
			t.Errorf("%d arguments for %d keys", len(args), len(keys))
		}
	})
}
