package pool_test

import (
	"reflect"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	wire "horcrux/pkg/events/pool"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/pool"
)

var node = uuid.MustParse("01900000-0000-7000-8000-000000000001")

func local(path string) wire.Defined {
	return wire.Defined{Name: "local", Type: "dir", Path: path, Options: map[string]string{}, Node: node}
}

func TestDecide(t *testing.T) {
	known := pool.Evolve(pool.Pool{}, local("/a"))
	renamed, retyped, elsewhere, bare := local("/a"), local("/a"), local("/a"), local("/a")
	renamed.Name, retyped.Type, elsewhere.Node, bare.Options = "other", "zfs", uuid.Nil, nil
	for name, c := range map[string]struct {
		given pool.Pool
		when  wire.Defined
		then  []any
		code  problem.Code
	}{
		"new":                       {pool.Pool{}, local("/a"), []any{local("/a")}, ""},
		"options are never null":    {pool.Pool{}, bare, []any{local("/a")}, ""},
		"again is no news":          {known, local("/a"), nil, ""},
		"again, without options":    {known, bare, nil, ""},
		"it moved":                  {known, local("/b"), []any{local("/b")}, ""},
		"it keeps its name":         {known, renamed, nil, problem.InvalidState},
		"it keeps its type":         {known, retyped, nil, problem.InvalidState},
		"it stays on the same node": {known, elsewhere, nil, problem.InvalidState},
	} {
		t.Run(name, func(t *testing.T) {
			evs, err := pool.Decide(c.given, pool.Define{Defined: c.when})
			if p := problem.From(err); (p != nil) != (c.code != "") || p != nil && p.Code != c.code || p == nil && err != nil {
				t.Fatalf("got %v, want code %q", err, c.code)
			}
			if !reflect.DeepEqual(evs, c.then) {
				t.Errorf("got %#v\nwant %#v", evs, c.then)
			}
		})
	}
}

func TestUnknownCommandIsNoRejection(t *testing.T) {
	if _, err := pool.Decide(pool.Pool{}, "define"); err == nil || problem.From(err) != nil {
		t.Errorf("got %v, want an error that is no problem", err)
	}
}

// Whatever is asked, a pool keeps its name, type and node, claims its name once, and a decision repeated is no news.
func TestAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pool.Pool
		claimed := 0
		for range rapid.IntRange(1, 20).Draw(t, "commands") {
			d := local(rapid.SampledFrom([]string{"/a", "/b"}).Draw(t, "path"))
			d.Name = rapid.SampledFrom([]string{"local", "other"}).Draw(t, "name")
			before := p
			evs, err := pool.Decide(p, pool.Define{Defined: d})
			for _, ev := range evs {
				claim, release := pool.Names(p, ev)
				claimed += len(claim)
				if release != nil || len(claim) > 0 && claim[0] != (eventstore.Name{Scope: "pool", Value: d.Name}) {
					t.Fatalf("claims %v, releases %v", claim, release)
				}
				p = pool.Evolve(p, ev)
			}
			if before.Exists && p.Name != before.Name || !p.Exists || claimed != 1 {
				t.Fatalf("%+v became %+v with %d names", before, p, claimed)
			}
			if err != nil {
				continue
			}
			if again, err := pool.Decide(p, pool.Define{Defined: d}); err != nil || again != nil {
				t.Fatalf("repeated: %v, %v", again, err)
			}
		}
	})
}
