package events_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
)

type (
	opened struct {
		WidthMM int    `json:"width_mm"`
		Colour  string `json:"colour"`
	}
	closed struct{}
)

var errNoWidth = errors.New("no width")

// Schema 1 had the width in centimetres; schema 2 named no colour.
func widthInMM(old json.RawMessage) (json.RawMessage, error) {
	var v struct {
		WidthCM *int `json:"width_cm"`
	}
	if err := json.Unmarshal(old, &v); err != nil {
		return nil, err
	}
	if v.WidthCM == nil {
		return nil, errNoWidth
	}
	return fmt.Appendf(nil, `{"width_mm":%d}`, *v.WidthCM*10), nil
}

func withColour(old json.RawMessage) (json.RawMessage, error) {
	return fmt.Appendf(nil, `%s,"colour":"grey"}`, strings.TrimSuffix(string(old), "}")), nil
}

var doors = events.NewCodec("door",
	events.TypeOf[opened]("door.opened", widthInMM, withColour), events.TypeOf[closed]("door.closed"))

func TestCodecGolden(t *testing.T) {
	eventstest.Golden(t, doors, []eventstest.Case{
		{Type: "door.opened", Schema: 1, Event: opened{WidthMM: 900, Colour: "grey"}, Data: `{"width_cm":90}`},
		{Type: "door.opened", Schema: 2, Event: opened{WidthMM: 905, Colour: "grey"}, Data: `{"width_mm":905}`},
		{Type: "door.opened", Schema: 3, Event: opened{WidthMM: 905, Colour: "red"}, Data: `{"width_mm":905,"colour":"red"}`},
		{Type: "door.closed", Event: closed{}, Data: `{}`},
	})
}

func TestDecodeErrors(t *testing.T) {
	for _, c := range []struct {
		name  string
		event events.Event
		is    error // nil: any error
	}{
		{"unknown type", events.Event{Type: "door.slammed", Schema: 1, Data: []byte(`{}`)}, events.ErrUnknownType},
		{"another kind's type", events.Event{Type: "vm.started", Schema: 1, Data: []byte(`{}`)}, events.ErrUnknownType},
		{"newer schema", events.Event{Type: "door.opened", Schema: 4, Data: []byte(`{}`)}, events.ErrNewerSchema},
		{"newer schema of a type without upcasters", events.Event{Type: "door.closed", Schema: 2, Data: []byte(`{}`)}, events.ErrNewerSchema},
		{"refused by an upcaster", events.Event{Type: "door.opened", Schema: 1, Data: []byte(`{}`)}, errNoWidth},
		{"no JSON", events.Event{Type: "door.closed", Schema: 1, Data: []byte(`{`)}, nil},
		{"no data", events.Event{Type: "door.closed", Schema: 1}, nil},
		{"wrong type of a field", events.Event{Type: "door.opened", Schema: 3, Data: []byte(`{"width_mm":"wide"}`)}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			v, err := doors.Decode(c.event)
			if v != nil || err == nil || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("got %v, %v; want %v", v, err, c.is)
			}
			if !strings.Contains(err.Error(), c.event.Type) {
				t.Errorf("%q does not name the event", err)
			}
		})
	}
}

func TestDecodeLeavesTheEventAlone(t *testing.T) {
	e := events.Event{Type: "door.opened", Schema: 1, Data: []byte(`{"width_cm":90}`)}
	if _, err := doors.Decode(e); err != nil || string(e.Data) != `{"width_cm":90}` {
		t.Errorf("%s, %v", e.Data, err)
	}
}

func TestTypes(t *testing.T) {
	types := doors.Types()
	slices.Sort(types)
	if !slices.Equal(types, []string{"door.closed", "door.opened"}) {
		t.Errorf("got %v", types)
	}
}

func TestMistakesOfTheProgramPanic(t *testing.T) {
	for name, mistake := range map[string]func(){
		"event type twice":    func() { events.NewCodec("x", events.TypeOf[opened]("x.a"), events.TypeOf[closed]("x.a")) },
		"struct twice":        func() { events.NewCodec("x", events.TypeOf[opened]("x.a"), events.TypeOf[opened]("x.b")) },
		"encode of a pointer": func() { doors.Encode(&closed{}) },
		"encode of a stranger": func() {
			doors.Encode(struct{}{})
		},
		"encode of nothing": func() { doors.Encode(nil) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			mistake()
		})
	}
}
