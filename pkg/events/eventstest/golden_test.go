package eventstest_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
)

// recorder is a T that keeps what it is told.
type recorder []string

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { *r = append(*r, fmt.Sprintf(format, args...)) }

type (
	painted struct {
		Colour string `json:"colour"`
	}
	gone struct{}
)

var codec = events.NewCodec("toy",
	events.TypeOf[painted]("toy.painted", func(old json.RawMessage) (json.RawMessage, error) {
		return bytes.Replace(old, []byte("color"), []byte("colour"), 1), nil
	}),
	events.TypeOf[gone]("toy.gone"))

func TestGoldenFindsWhatDiffers(t *testing.T) {
	var (
		old     = eventstest.Case{Type: "toy.painted", Event: painted{"red"}, Data: `{"color":"red"}`}
		present = eventstest.Case{Type: "toy.painted", Schema: 2, Event: painted{"red"}, Data: `{"colour":"red"}`}
		end     = eventstest.Case{Type: "toy.gone", Event: gone{}, Data: `{}`}
	)
	for _, c := range []struct {
		name  string
		cases []eventstest.Case
		want  []string // what the complaints begin with
	}{
		{"nothing", []eventstest.Case{old, present, end}, nil},
		{"other bytes", []eventstest.Case{old, {Type: "toy.painted", Schema: 2, Event: painted{"red"}, Data: `{ "colour":"red"}`}, end}, []string{"toy.painted is written as"}},
		{"another event", []eventstest.Case{{Type: "toy.painted", Event: painted{"blue"}, Data: `{"color":"red"}`}, present, end}, []string{"toy.painted schema 1 is read as"}},
		{"unreadable bytes", []eventstest.Case{{Type: "toy.painted", Event: painted{"red"}, Data: `{`}, present, end}, []string{"toy.painted schema 1 is read as"}},
		{"another type", []eventstest.Case{old, present, end, {Type: "toy.gone", Event: painted{}, Data: `{}`}}, []string{"eventstest_test.painted is recorded as toy.painted", "toy.gone schema 1 is read as", "toy.gone schema 2 has"}},
		{"a type without bytes", []eventstest.Case{old, present}, []string{"toy.gone schema 1 has no golden bytes"}},
		{"an old schema without bytes", []eventstest.Case{present, end}, []string{"toy.painted schema 1 has no golden bytes"}},
		{"a new schema without bytes", []eventstest.Case{old, end}, []string{"toy.painted schema 2 has no golden bytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var r recorder
			eventstest.Golden(&r, codec, c.cases)
			if len(r) != len(c.want) {
				t.Fatalf("complains %q, want %q", []string(r), c.want)
			}
			for i := range r {
				if !strings.HasPrefix(r[i], c.want[i]) {
					t.Errorf("complains %q, want %q", r[i], c.want[i])
				}
			}
		})
	}
}
