package readmodel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/problem"
	"horcrux/services/api/readmodel"
)

// A kind of object as small as can be.
type (
	made struct {
		Name  string   `json:"name"`
		Size  int      `json:"size"`
		Tags  []string `json:"tags"`
		Ready bool     `json:"ready"`
	}
	grown struct {
		Size int `json:"size"`
	}
	gone struct{}
	// future is of a later program: the codec of the tests does not know it.
	future struct{}
)

type widgetView struct {
	events.Common
	Size  int      `json:"size"`
	Tags  []string `json:"tags"`
	Ready bool     `json:"ready"`
}

func widgets(kind string) *events.Resource {
	codec := events.NewCodec(kind, events.TypeOf[made](kind+".made"), events.TypeOf[grown](kind+".grown"), events.TypeOf[gone](kind+".gone"))
	apply := func(v *widgetView, event any, _ events.Event) bool {
		switch e := event.(type) {
		case made:
			v.Name, v.Size, v.Tags, v.Ready = e.Name, e.Size, e.Tags, e.Ready
		case grown:
			v.Size = e.Size
		case gone:
			return true
		}
		return false
	}
	return &events.Resource{
		Kind: kind, Collection: kind + "s", NameScope: kind, Codec: codec,
		Apply: events.NewApply(codec, apply), Begin: events.NewBegin(codec, apply),
		Filters: []string{"size", "tags", "ready"}, FilterNames: map[string]string{"tag": "tags"},
	}
}

var futureCodec = events.NewCodec("widget", events.TypeOf[future]("widget.painted"))

// world is a store with a model of widgets and gadgets.
type world struct {
	t     *testing.T
	store *memory.Store
	pool  *pgxpool.Pool
	model *readmodel.Model
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: memory.New(nil), pool: database(t)}
	w.model = w.open()
	return w
}

func (w *world) open() *readmodel.Model {
	w.t.Helper()
	m, err := readmodel.Open(w.t.Context(), readmodel.Options{
		Pool: w.pool, Reader: w.store, Resources: []*events.Resource{widgets("widget"), widgets("gadget")},
		Wake: w.store.Nudged(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

// record appends events to the stream of an object and returns the last position.
func (w *world) record(kind string, id uuid.UUID, drafts ...events.Draft) events.Position {
	w.t.Helper()
	stream := events.NewStream(kind, id)
	h, err := w.store.Load(w.t.Context(), stream)
	if err != nil {
		w.t.Fatal(err)
	}
	r, err := w.store.Append(w.t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{{Stream: stream, Head: h[0].Head, Events: drafts}}})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Events[len(r.Events)-1].Position
}

func (w *world) make(kind, name string, size int, tags ...string) uuid.UUID {
	w.t.Helper()
	id := events.NewID()
	w.record(kind, id, widgets(kind).Codec.Encode(made{Name: name, Size: size, Tags: tags, Ready: size%2 == 0}))
	return id
}

func (w *world) grow(kind string, id uuid.UUID, size int) events.Position {
	w.t.Helper()
	return w.record(kind, id, widgets(kind).Codec.Encode(grown{size}))
}

func (w *world) toEnd() {
	w.t.Helper()
	if err := w.model.RunToEnd(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) find(kind, ref string) *readmodel.Row {
	w.t.Helper()
	row, err := w.model.Find(w.t.Context(), kind, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	return row
}

func (w *world) list(q readmodel.Query) (names []string, next string) {
	w.t.Helper()
	page, err := w.model.List(w.t.Context(), "widget", q)
	if err != nil {
		w.t.Fatal(err)
	}
	return namesOf(w.t, page.Docs()), page.Next
}

func namesOf(t *testing.T, docs []json.RawMessage) (names []string) {
	t.Helper()
	for _, d := range docs {
		var v struct{ Name string }
		if err := json.Unmarshal(d, &v); err != nil {
			t.Fatal(err)
		}
		names = append(names, v.Name)
	}
	return names
}

func equal[T comparable](t *testing.T, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestProject(t *testing.T) {
	t.Run("RowIsTheFoldOfTheStream", func(t *testing.T) {
		w := newWorld(t)
		id := w.make("widget", "a", 1)
		w.grow("widget", id, 7)
		w.toEnd()
		w.grow("widget", id, 8) // on a row that exists
		w.toEnd()
		row := w.find("widget", "a")
		h, err := w.store.Load(t.Context(), events.NewStream("widget", id))
		if err != nil {
			t.Fatal(err)
		}
		var want json.RawMessage
		for _, e := range h[0].Events {
			if want, _, err = widgets("widget").Apply(want, e); err != nil {
				t.Fatal(err)
			}
		}
		if row == nil || string(row.Doc) != string(want) || row.Version != 3 {
			t.Errorf("row %+v, want %s", row, want)
		}
	})
	t.Run("Deleted", func(t *testing.T) {
		w := newWorld(t)
		id := w.make("widget", "a", 1)
		w.record("widget", id, widgets("widget").Codec.Encode(gone{}))
		w.toEnd()
		if row := w.find("widget", "a"); row != nil {
			t.Errorf("found by name: %+v", row)
		}
		if row := w.find("widget", id.String()); row == nil || !row.Deleted {
			t.Errorf("by id: %+v, want a deleted row", row)
		}
		names, _ := w.list(readmodel.Query{})
		equal(t, names, nil)
	})
	t.Run("GoesOnAfterRestart", func(t *testing.T) {
		w := newWorld(t)
		id := w.make("widget", "a", 1)
		w.toEnd()
		before := w.model.Position("widget")
		w.model = w.open()
		if got := w.model.Position("widget"); got != before {
			t.Errorf("restarted at %v, want %v", got, before)
		}
		w.grow("widget", id, 2)
		w.toEnd()
		if row := w.find("widget", "a"); row.Version != 2 {
			t.Errorf("version %d, want 2", row.Version)
		}
	})
	t.Run("TwoGatewaysOnTheSameTables", func(t *testing.T) {
		w := newWorld(t)
		other := w.open()
		id := w.make("widget", "a", 0)
		for i := range 20 {
			w.grow("widget", id, i)
			m := w.model
			if i%2 == 0 {
				m = other
			}
			if err := m.RunToEnd(t.Context()); err != nil {
				t.Fatal(err)
			}
			if row := w.find("widget", "a"); row.Version != int64(i+2) {
				t.Fatalf("version %d after event %d", row.Version, i+2)
			}
		}
	})
	t.Run("TakesUpWhatACrashOfTheDatabaseLost", func(t *testing.T) {
		w := newWorld(t)
		id := w.make("widget", "a", 1)
		w.toEnd()
		var tx, seq int64
		if err := w.pool.QueryRow(t.Context(), `SELECT tx, seq FROM api.projections WHERE kind = 'widget'`).Scan(&tx, &seq); err != nil {
			t.Fatal(err)
		}
		w.grow("widget", id, 2)
		w.toEnd()
		// The commit without fsync is lost: rows and checkpoint are what they were.
		for _, sql := range []string{
			fmt.Sprintf(`UPDATE api.projections SET tx = %d, seq = %d`, tx, seq),
			`UPDATE api.views SET version = 1, doc = replace(doc, '"size":2', '"size":1')`,
		} {
			if _, err := w.pool.Exec(t.Context(), sql); err != nil {
				t.Fatal(err)
			}
		}
		w.grow("widget", id, 3)
		w.toEnd()
		if row := w.find("widget", "a"); row.Version != 3 || !strings.Contains(string(row.Doc), `"size":3`) {
			t.Errorf("row %s at version %d, want size 3 at version 3", row.Doc, row.Version)
		}
	})
}

func TestHalt(t *testing.T) {
	w := newWorld(t)
	id := w.make("widget", "a", 1)
	w.grow("widget", id, 2)
	w.record("widget", id, futureCodec.Encode(future{}))
	w.grow("widget", id, 3)
	gadget := w.make("gadget", "g", 1)
	w.toEnd()
	if row := w.find("widget", "a"); row == nil || row.Version != 2 {
		t.Fatalf("row %+v, want what was before the unknown event", row)
	}
	if w.find("gadget", gadget.String()) == nil {
		t.Error("the projection of the other kind halted too")
	}
	for _, s := range w.model.Status() {
		if halted := errors.Is(s.Halted, events.ErrUnknownType); halted != (s.Kind == "widget") {
			t.Errorf("%s: halted by %v", s.Kind, s.Halted)
		}
	}
	if err := w.model.Wait(t.Context(), "widget", w.grow("widget", id, 4)); !errors.Is(err, readmodel.ErrHalted) {
		t.Errorf("wait: %v, want ErrHalted", err)
	}
	if err := w.model.Rebuild(t.Context(), "widget", nil); !errors.Is(err, events.ErrUnknownType) {
		t.Errorf("rebuild: %v, want ErrUnknownType", err)
	}
	if row := w.find("widget", "a"); row == nil || row.Version != 2 {
		t.Errorf("row %+v after a rebuild that failed", row)
	}
}

func TestWait(t *testing.T) {
	run := func(t *testing.T, w *world) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.model.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("UntilProjected", func(t *testing.T) {
		w := newWorld(t)
		run(t, w)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		id := w.make("widget", "a", 1)
		for i := range 50 {
			if err := w.model.Wait(ctx, "widget", w.grow("widget", id, i)); err != nil {
				t.Fatal(err)
			}
			if row := w.find("widget", "a"); row.Version != int64(i+2) {
				t.Fatalf("version %d, want %d", row.Version, i+2)
			}
		}
	})
	t.Run("ForAChange", func(t *testing.T) {
		w := newWorld(t)
		run(t, w)
		id := w.make("widget", "a", 1)
		watch := w.model.Watch(id)
		defer watch.Close()
		for v := int64(2); v <= 4; v++ {
			changed := watch.Changed()
			w.grow("widget", id, int(v))
			for row := (*readmodel.Row)(nil); row == nil || row.Version < v; {
				select {
				case <-changed:
				case <-time.After(10 * time.Second):
					t.Fatalf("not woken for version %d", v)
				}
				changed = watch.Changed()
				var err error
				if row, err = w.model.Find(t.Context(), "widget", id.String()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
	t.Run("InVain", func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		pos := w.record("widget", events.NewID(), widgets("widget").Codec.Encode(made{}))
		if err := w.model.Wait(ctx, "widget", pos); !errors.Is(err, readmodel.ErrBehind) {
			t.Errorf("%v, want ErrBehind", err)
		}
	})
	t.Run("PositionOfAnotherLog", func(t *testing.T) {
		w := newWorld(t)
		if err := w.model.Wait(t.Context(), "widget", events.Position{Era: 9, Tx: 1}); !errors.Is(err, eventstore.ErrUnknownEra) {
			t.Errorf("%v, want ErrUnknownEra", err)
		}
	})
}

func TestList(t *testing.T) {
	w := newWorld(t)
	for i := range 25 {
		w.make("widget", fmt.Sprintf("w%02d", i), i%3, []string{"odd", "even"}[i%2], "all")
	}
	w.toEnd()
	t.Run("Pages", func(t *testing.T) {
		for _, sort := range []string{"", "-name", "created_at", "size,-name", "-size,-created_at", "ready,size,name", "tags,name"} {
			all, next := w.list(readmodel.Query{Sort: sort})
			if len(all) != 25 || next != "" {
				t.Fatalf("sort %q: %d rows, next %q", sort, len(all), next)
			}
			var paged []string
			q := readmodel.Query{Sort: sort, Limit: 4}
			for {
				names, next := w.list(q)
				paged = append(paged, names...)
				if next == "" {
					break
				}
				q.Cursor = next
			}
			equal(t, paged, all)
		}
	})
	t.Run("Sort", func(t *testing.T) {
		names, _ := w.list(readmodel.Query{Sort: "-size,-name", Limit: 3})
		equal(t, names, []string{"w23", "w20", "w17"})
	})
	for _, tt := range []struct {
		name string
		q    readmodel.Query
		want []string
	}{
		{"Number", readmodel.Query{Filters: map[string][]string{"size": {"2"}}, Limit: 2}, []string{"w02", "w05"}},
		{"ItemOfAnArray", readmodel.Query{Filters: map[string][]string{"tag": {"even"}}, Limit: 2}, []string{"w01", "w03"}},
		{"Boolean", readmodel.Query{Filters: map[string][]string{"ready": {"false"}}, Limit: 2}, []string{"w01", "w04"}},
		{"Alternatives", readmodel.Query{Filters: map[string][]string{"size": {"1", "2"}}, Limit: 3}, []string{"w01", "w02", "w04"}},
		{"Both", readmodel.Query{Filters: map[string][]string{"size": {"0"}, "tag": {"odd"}}, Limit: 2}, []string{"w00", "w06"}},
		{"Name", readmodel.Query{Contain: "W1", Limit: 2}, []string{"w10", "w11"}},
		{"WildcardsAreText", readmodel.Query{Contain: "%"}, nil},
		{"NobodyHasIt", readmodel.Query{Filters: map[string][]string{"size": {"1e999999"}}}, nil},
	} {
		t.Run("Filter/"+tt.name, func(t *testing.T) {
			names, _ := w.list(tt.q)
			equal(t, names, tt.want)
		})
	}
	_, cursor := w.list(readmodel.Query{Limit: 1})
	for name, q := range map[string]readmodel.Query{
		"query.limit":  {Limit: 1001},
		"query.sort":   {Sort: "colour"},
		"query.sort ":  {Sort: "name,name"},
		"query.color":  {Filters: map[string][]string{"color": {"red"}}},
		"query.size":   {Filters: map[string][]string{"size": {"\x00"}}},
		"query.q":      {Contain: "\x00"},
		"query.cursor": {Cursor: "garbage"},
		// A cursor is of one order.
		"query.cursor ": {Cursor: cursor, Sort: "-name"},
	} {
		t.Run("Refused/"+name, func(t *testing.T) {
			_, err := w.model.List(t.Context(), "widget", q)
			p := problem.From(err)
			if p == nil || p.Code != problem.InvalidValue || len(p.Fields) != 1 || p.Fields[0].Field != strings.TrimSpace(name) {
				t.Errorf("%v, want invalid_value of %s", err, name)
			}
		})
	}
	t.Run("JSON", func(t *testing.T) {
		page, err := w.model.List(t.Context(), "widget", readmodel.Query{Limit: 2})
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Items    []json.RawMessage
			Next     *string
			Position events.Position
		}
		if err := json.Unmarshal(page.JSON(), &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Items) != 2 || got.Next == nil || *got.Next != page.Next || got.Position != w.model.Position("widget") {
			t.Errorf("%s", page.JSON())
		}
	})
}

func TestRebuild(t *testing.T) {
	w := newWorld(t)
	var ids []uuid.UUID
	for i := range 30 {
		ids = append(ids, w.make("widget", fmt.Sprintf("w%02d", i), i))
	}
	for i := range 90 {
		w.grow("widget", ids[i%30], i)
	}
	w.toEnd()
	want, err := w.model.List(t.Context(), "widget", readmodel.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.pool.Exec(t.Context(), `UPDATE api.views SET doc = '{}', name = 'x'`); err != nil {
		t.Fatal(err)
	}
	var last readmodel.Progress
	added := events.NewID()
	err = w.model.Rebuild(t.Context(), "widget", func(p readmodel.Progress) {
		if !p.Done && last.Events == 0 { // while it runs somebody makes another
			w.record("widget", added, widgets("widget").Codec.Encode(made{Name: "zz"}))
		}
		last = p
	})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.model.List(t.Context(), "widget", readmodel.Query{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, namesOf(t, got.Docs()), append(namesOf(t, want.Docs()), "zz"))
	if last.Events != 121 || !last.Done {
		t.Errorf("progress %+v, want 121 events", last)
	}
	for i, d := range want.Docs() {
		if string(d) != string(got.Docs()[i]) {
			t.Errorf("got %s, want %s", got.Docs()[i], d)
		}
	}
	var rows int
	if err := w.pool.QueryRow(t.Context(), `SELECT count(*) FROM api.views`).Scan(&rows); err != nil || rows != 31 {
		t.Errorf("%d rows, want 31 (%v)", rows, err)
	}
	w.grow("widget", added, 9)
	w.toEnd()
	if row := w.find("widget", "zz"); row.Version != 2 {
		t.Errorf("the new generation does not follow: version %d", row.Version)
	}
}
