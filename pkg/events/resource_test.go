package events_test

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"

	"horcrux/pkg/events"
)

// A door is a view of all that makes a difference between folding through JSON and not.
type door struct {
	events.Common
	WidthMM int            `json:"width_mm"`
	Colours []string       `json:"colours"`
	Closed  *time.Time     `json:"closed"`
	Notes   map[string]any `json:"notes"`
}

var (
	applyDoor = func(v *door, event any, e events.Event) bool {
		switch ev := event.(type) {
		case opened:
			v.WidthMM, v.Closed = ev.WidthMM, nil
			if v.Colours = append(v.Colours, ev.Colour); len(v.Colours) > 3 {
				v.Colours = nil
			}
			v.Notes = map[string]any{"widths": ev.WidthMM}
		case closed:
			v.Closed = &e.At
			return v.WidthMM == 0
		}
		return false
	}
	withBegin = events.Resource{
		Kind: "door", Codec: doors, Apply: events.NewApply(doors, applyDoor), Begin: events.NewBegin(doors, applyDoor),
	}
	withoutBegin = events.Resource{Kind: "door", Codec: doors, Apply: withBegin.Apply}
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// happened is the n-th event of a door, n seconds after noon.
func happened(n int, event any) events.Event {
	d := doors.Encode(event)
	return events.Event{
		Stream: events.NewStream("door", object), Version: int64(n), Type: d.Type, Schema: d.Schema, Data: d.Data,
		At: noon.Add(time.Duration(n) * time.Second),
	}
}

func TestApplyKeepsTheCommonFields(t *testing.T) {
	var doc json.RawMessage
	for n, event := range []any{opened{WidthMM: 900, Colour: "red"}, closed{}, opened{WidthMM: 905, Colour: "blue"}} {
		next, deleted, err := withBegin.Apply(doc, happened(n+1, event))
		if err != nil || deleted {
			t.Fatalf("deleted %t, %v", deleted, err)
		}
		doc = next
		var v door
		if err := json.Unmarshal(doc, &v); err != nil {
			t.Fatal(err)
		}
		want := events.Common{
			ID: object, Version: int64(n + 1), CreatedAt: noon.Add(time.Second), UpdatedAt: noon.Add(time.Duration(n+1) * time.Second),
		}
		if v.Common != want {
			t.Errorf("after %T: %+v, want %+v", event, v.Common, want)
		}
	}
}

// TestFoldsAreEqual: wherever a fold begins, with or without Begin, the view is what event after event gives it, byte
// for byte; and an event that cannot be folded leaves it as it was.
func TestFoldsAreEqual(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var doc json.RawMessage
		docs := []json.RawMessage{nil}
		ended := []bool{false}
		var log []events.Event
		for n := range rapid.IntRange(1, 12).Draw(t, "events") {
			var event any = closed{}
			if rapid.Bool().Draw(t, "opens") {
				event = opened{WidthMM: rapid.IntRange(0, 2).Draw(t, "width"), Colour: rapid.StringN(0, 2, -1).Draw(t, "colour")}
			}
			e := happened(n+1, event)
			next, deleted, err := withBegin.Apply(doc, e)
			if err != nil {
				t.Fatal(err)
			}
			doc = next
			log, docs, ended = append(log, e), append(docs, doc), append(ended, deleted)
		}
		from := rapid.IntRange(0, len(log)).Draw(t, "from")
		broken := rapid.SampledFrom([]events.Event{
			{Type: "door.slammed", Schema: 1, Data: []byte(`{}`)},
			{Type: "door.opened", Schema: 3, Data: []byte(`{`)},
			{Type: "door.closed", Schema: 2, Data: []byte(`{}`)},
		}).Draw(t, "broken")
		for name, r := range map[string]*events.Resource{"with Begin": &withBegin, "without Begin": &withoutBegin} {
			f, err := r.Fold(docs[from])
			if err != nil {
				t.Fatal(err)
			}
			same := func(want json.RawMessage) {
				if got, err := f.Doc(); err != nil || string(got) != string(want) || (got == nil) != (want == nil) {
					t.Fatalf("%s, from %d: %s, %v; want %s", name, from, got, err, want)
				}
			}
			for i := from; i < len(log); i++ {
				same(docs[i])
				if _, err := f.Apply(broken); err == nil {
					t.Fatalf("%s: folds %s", name, broken.Type)
				}
				same(docs[i])
				if deleted, err := f.Apply(log[i]); err != nil || deleted != ended[i+1] {
					t.Fatalf("%s: deleted %t, %v", name, deleted, err)
				}
			}
			same(docs[len(log)])
		}
	})
}

func TestFoldOfWhatIsNoView(t *testing.T) {
	if _, err := withBegin.Fold(json.RawMessage(`[]`)); err == nil {
		t.Error("begins with []")
	}
	if _, _, err := withBegin.Apply(json.RawMessage(`[]`), happened(1, closed{})); err == nil {
		t.Error("applies to []")
	}
	if _, _, err := withBegin.Apply(nil, events.Event{Type: "door.slammed"}); !errors.Is(err, events.ErrUnknownType) {
		t.Errorf("got %v", err)
	}
}
