package rest

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// The second domain: everything that is promised for every kind of object works from its resource alone.

func (w *world) makeWidget(name, colour string) operation.View {
	w.t.Helper()
	return w.post("/api/widgets?wait=10", `{"name":"`+name+`","colour":"`+colour+`"}`).is(200).operation()
}

func TestOperation(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	t.Run("Accepted", func(t *testing.T) {
		r := w.post("/api/widgets", `{"name":"a","colour":"red"}`).is(202)
		op := r.operation()
		if r.Header.Get("Location") != "/api/operations/"+op.ID.String() || op.Type != "widget.create" || op.Actor != "token:admin" {
			t.Errorf("%s, %+v", r.Header.Get("Location"), op)
		}
		v := into[widgetView](w.get("/api/widgets/a?min_position=" + r.position()).is(200))
		if v.Colour != "red" || op.Resource != "/api/widgets/"+v.ID.String() {
			t.Errorf("view %+v of operation %+v", v, op)
		}
	})
	t.Run("Waited", func(t *testing.T) {
		if op := w.makeWidget("b", "red"); op.State != operation.StateSucceeded {
			t.Errorf("%+v", op)
		}
		w.get("/api/widgets/b").is(200) // at once: the read model has it
	})
	t.Run("ShownAsTold", func(t *testing.T) { // no GET shows less than an answer told
		w.log.gate.Lock()
		open := sync.OnceFunc(w.log.gate.Unlock)
		defer open()
		if op := w.makeWidget("told", "red"); op.State != operation.StateSucceeded {
			t.Errorf("%+v", op)
		}
		shown := make(chan int, 1)
		go func() { shown <- w.get("/api/widgets/told").Status }()
		select {
		case code := <-shown:
			t.Errorf("answered %d before the read model could know", code)
		case <-time.After(100 * time.Millisecond):
			open()
			if code := <-shown; code != 200 {
				t.Errorf("answered %d", code)
			}
		}
	})
	t.Run("ShownAsItIsWhereTheReadModelIsHeldUp", func(t *testing.T) {
		w.log.gate.Lock()
		defer w.log.gate.Unlock()
		w.makeWidget("late", "red")
		w.get("/api/widgets/late").is(404)
		w.get("/api/widgets").is(200)
	})
	t.Run("WaitedInVain", func(t *testing.T) {
		w.service.set(func(s *service) { s.hold = true })
		defer w.service.set(func(s *service) { s.hold = false })
		if op := w.post("/api/widgets?wait=1", `{"name":"c","colour":"red"}`).is(200).operation(); op.State != operation.StateRunning {
			t.Errorf("%+v", op)
		}
	})
	t.Run("Rejected", func(t *testing.T) {
		p := w.post("/api/widgets?wait=10", `{"name":"a","colour":"red"}`).problem(problem.NameTaken)
		if p.Operation == nil {
			t.Error("the problem does not name the operation")
		}
	})
	t.Run("NobodyDecides", func(t *testing.T) {
		w.service.set(func(s *service) { s.deaf = true })
		defer w.service.set(func(s *service) { s.deaf = false })
		if op := w.post("/api/widgets", `{"name":"d","colour":"red"}`).is(202).operation(); op.State != operation.StateQueued {
			t.Errorf("%+v", op)
		}
		due, err := w.store.Due(t.Context(), time.Now().Add(time.Hour), 10)
		if err != nil || len(due) != 1 || due[0].Command.Type != "widget.create" {
			t.Errorf("the sweeper would find %+v (%v), want the command", due, err)
		}
	})
	t.Run("NoSuchObject", func(t *testing.T) {
		w.post("/api/widgets/nobody/paint", `{"colour":"blue"}`).problem(problem.NotFound)
		w.post("/api/widgets/"+events.NewID().String()+"/paint", `{"colour":"blue"}`).problem(problem.NotFound)
	})
	t.Run("ByIDAndName", func(t *testing.T) {
		v := into[widgetView](w.get("/api/widgets/a").is(200))
		w.post("/api/widgets/"+v.ID.String()+"/paint?wait=10", `{"colour":"green"}`).is(200)
		w.post("/api/widgets/a/paint?wait=10&reason=because", `{"colour":"blue"}`).is(200)
		if v := into[widgetView](w.get("/api/widgets/" + v.ID.String()).is(200)); v.Colour != "blue" {
			t.Errorf("%+v", v)
		}
		last := w.service.asked[len(w.service.asked)-1]
		if last.To != (events.Address{Domain: "toys", Node: w.service.node.String()}) || last.Meta.Reason != "because" {
			t.Errorf("command %+v, want it sent to the widget's node", last)
		}
	})
}

func TestETag(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	w.makeWidget("a", "red")
	tag := w.get("/api/widgets/a").is(200).Header.Get("ETag")
	if tag != `"1"` {
		t.Fatalf("ETag %s", tag)
	}
	w.post("/api/widgets/a/paint?wait=10", `{"colour":"blue"}`, header{"If-Match": tag}).is(200)
	w.post("/api/widgets/a/paint?wait=10", `{"colour":"green"}`, header{"If-Match": tag}).problem(problem.VersionConflict)
	w.post("/api/widgets/a/paint?wait=10", `{"colour":"white"}`, header{"If-Match": "*"}).is(200) // whatever its version
	w.post("/api/widgets/nobody/paint", `{"colour":"white"}`, header{"If-Match": "*"}).problem(problem.NotFound)
	w.post("/api/widgets/a/paint", `{"colour":"green"}`, header{"If-Match": "2"}).problem(problem.InvalidValue, "header.If-Match")
	w.post("/api/widgets/a/paint", `{"colour":"green"}`, header{"If-Match": `"99999999999999999999"`}).problem(problem.InvalidValue, "header.If-Match")
}

func TestPast(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	w.makeWidget("a", "red")
	w.post("/api/widgets/a/paint?wait=10&reason=dull", `{"colour":"blue"}`).is(200)
	made := into[widgetView](w.get("/api/widgets/a").is(200))
	history := into[openapi.History](w.get("/api/widgets/a/history").is(200))
	t.Run("History", func(t *testing.T) {
		if len(history.Items) != 2 {
			t.Fatalf("%+v", history)
		}
		c := history.Items[1]
		if c.Type != "widget.painted" || c.Before["colour"] != "red" || c.After["colour"] != "blue" || len(c.Before) != 1 ||
			c.Actor != "token:admin" || c.Reason == nil || *c.Reason != "dull" || c.Operation == nil {
			t.Errorf("%+v", c)
		}
		if first := history.Items[0]; len(first.Before) != 0 || first.After["name"] != "a" {
			t.Errorf("%+v", first)
		}
	})
	t.Run("At", func(t *testing.T) {
		for name, at := range map[string]string{"Position": history.Items[0].Position, "Time": history.Items[0].Time.Format(time.RFC3339Nano)} {
			r := w.get("/api/widgets/a?at=" + strings.ReplaceAll(at, "+", "%2B")).is(200)
			if v := into[widgetView](r); v.Colour != "red" || r.Header.Get("ETag") != `"1"` {
				t.Errorf("%s: %s", name, r.Body)
			}
		}
		w.get("/api/widgets/a?at=2001-01-01T00:00:00Z").problem(problem.NotFound)
		w.get("/api/widgets/a?at=yesterday").problem(problem.InvalidValue, "query.at")
		w.get("/api/widgets/a?at=" + events.Position{Era: 7, Tx: 1, Seq: 1}.String()).problem(problem.PositionGone)
	})
	t.Run("Revert", func(t *testing.T) {
		to := `{"to":"` + history.Items[0].Position + `"}`
		w.post("/api/widgets/a/revert?wait=10", to).is(200)
		if v := into[widgetView](w.get("/api/widgets/a").is(200)); v.Colour != "red" || v.Version != 3 {
			t.Errorf("%+v", v)
		}
		w.post("/api/widgets/a/revert", to).problem(problem.InvalidState)
		w.post("/api/widgets/a/revert", `{"to":"@"}`).problem(problem.InvalidValue, "to")
		w.post("/api/widgets/a/revert", to, header{"If-Match": `"1"`}).problem(problem.InvalidState)
	})
	t.Run("Deleted", func(t *testing.T) {
		w.call("DELETE", "/api/widgets/a?wait=10", "").is(200)
		w.get("/api/widgets/a").problem(problem.NotFound)
		w.get("/api/widgets/" + made.ID.String()).problem(problem.NotFound)
		w.get("/api/widgets/a/history").problem(problem.NotFound)
		if h := into[openapi.History](w.get("/api/widgets/" + made.ID.String() + "/history").is(200)); len(h.Items) != 4 {
			t.Errorf("%+v", h)
		}
		if v := into[widgetView](w.get("/api/widgets/" + made.ID.String() + "?at=" + history.Position).is(200)); v.Colour != "blue" {
			t.Errorf("%+v", v)
		}
		w.get("/api/widgets/" + made.ID.String() + "?at=" + time.Now().Add(time.Hour).UTC().Format(time.RFC3339)).problem(problem.NotFound)
		w.post("/api/widgets/"+made.ID.String()+"/paint", `{"colour":"blue"}`).problem(problem.NotFound)
		w.makeWidget("a", "white") // the name is free
	})
}

func TestIdempotencyKey(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	body, key := `{"name":"a","colour":"red"}`, header{"Idempotency-Key": "k1"}
	first := w.post("/api/widgets", body, key).is(202).operation()
	t.Run("Repeat", func(t *testing.T) {
		again := w.post("/api/widgets?wait=10", body, key).is(200).operation() // wait does not count
		if again.ID != first.ID || again.State != operation.StateSucceeded || w.service.effect != 1 {
			t.Errorf("%+v, %d effects", again, w.service.effect)
		}
	})
	t.Run("RepeatOfADeleteWhoseObjectIsGone", func(t *testing.T) {
		del := header{"Idempotency-Key": "del"}
		w.makeWidget("gone", "red")
		one := w.call("DELETE", "/api/widgets/gone?wait=10", "", del).is(200).operation()
		if two := w.call("DELETE", "/api/widgets/gone?wait=10", "", del).is(200).operation(); one.ID != two.ID {
			t.Errorf("%s and %s", one.ID, two.ID)
		}
	})
	t.Run("AnotherBody", func(t *testing.T) {
		w.post("/api/widgets", `{"name":"a","colour":"blue"}`, key).problem(problem.IdempotencyKeyReused)
	})
	t.Run("AnotherQuery", func(t *testing.T) {
		w.post("/api/widgets?reason=x", body, key).problem(problem.IdempotencyKeyReused)
	})
	t.Run("AnotherActor", func(t *testing.T) {
		w.post("/api/widgets", body, key, header{"Authorization": "Bearer other"}).problem(problem.NameTaken)
	})
	t.Run("RejectionIsKept", func(t *testing.T) {
		k := header{"Idempotency-Key": "taken"}
		one := w.post("/api/widgets", body, k).problem(problem.NameTaken)
		two := w.post("/api/widgets", body, k).problem(problem.NameTaken)
		if *one.Operation != *two.Operation {
			t.Errorf("%s and %s", one.Operation, two.Operation)
		}
	})
	t.Run("ServerErrorIsNotKept", func(t *testing.T) {
		k := header{"Idempotency-Key": "down"}
		w.service.set(func(s *service) { s.down = problem.New(problem.Unavailable, "down") })
		w.post("/api/widgets", `{"name":"z","colour":"red"}`, k).problem(problem.Unavailable)
		w.post("/api/widgets", `{"name":"z","colour":"red"}`, k).problem(problem.Unavailable)
		w.service.set(func(s *service) { s.down = nil })
		one := w.post("/api/widgets?wait=10", `{"name":"z","colour":"red"}`, k).is(200).operation()
		two := w.post("/api/widgets?wait=10", `{"name":"z","colour":"red"}`, k).is(200).operation()
		if one.ID != two.ID {
			t.Errorf("%s and %s", one.ID, two.ID)
		}
		w.post("/api/widgets", `{"name":"y","colour":"red"}`, k).problem(problem.IdempotencyKeyReused)
	})
	t.Run("NotDecidedYet", func(t *testing.T) {
		w.service.set(func(s *service) { s.deaf = true })
		defer w.service.set(func(s *service) { s.deaf = false })
		k := header{"Idempotency-Key": "slow"}
		w.post("/api/widgets", `{"name":"s","colour":"red"}`, k).is(202)
		w.post("/api/widgets", `{"name":"s","colour":"red"}`, k).problem(problem.IdempotencyInProgress)
	})
	t.Run("AtTheSameTime", func(t *testing.T) {
		k := header{"Idempotency-Key": "twice"}
		before := w.service.commands("widget")
		answers := make(chan *response, 8)
		for range cap(answers) {
			go func() { answers <- w.post("/api/widgets?wait=10", `{"name":"one","colour":"red"}`, k) }()
		}
		ids := map[string]bool{}
		for range cap(answers) {
			switch r := <-answers; r.Status {
			case 200:
				ids[r.operation().ID.String()] = true
			default:
				r.problem(problem.IdempotencyInProgress)
			}
		}
		if n := w.service.commands("widget") - before; n != 1 || len(ids) != 1 {
			t.Errorf("%d commands, operations %v; want one", n, ids)
		}
	})
}

func TestList(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	for _, n := range []string{"b", "a", "c"} {
		w.makeWidget(n, map[string]string{"a": "red", "b": "blue", "c": "red"}[n])
	}
	type list struct {
		Items    []widgetView
		Next     *string
		Position string
	}
	page := into[list](w.get("/api/widgets?limit=2").is(200))
	if len(page.Items) != 2 || page.Items[0].Name != "a" || page.Next == nil || page.Position == "" {
		t.Fatalf("%+v", page)
	}
	if page = into[list](w.get("/api/widgets?limit=2&cursor=" + *page.Next).is(200)); len(page.Items) != 1 || page.Next != nil {
		t.Errorf("%+v", page)
	}
	if page = into[list](w.get("/api/widgets?colour=red&sort=-name").is(200)); len(page.Items) != 2 || page.Items[0].Name != "c" {
		t.Errorf("%+v", page)
	}
	w.get("/api/widgets?limit=0").problem(problem.InvalidValue, "query.limit")
	w.get("/api/widgets?limit=x").problem(problem.InvalidValue, "query.limit")
	w.get("/api/widgets?limit=1&limit=2").problem(problem.MalformedRequest, "query.limit")
	w.get("/api/widgets?color=red").problem(problem.MalformedRequest, "query.color")
	w.get("/api/widgets?sort=weight").problem(problem.InvalidValue, "query.sort")
	w.get("/api/widgets?cursor=AAAA").problem(problem.InvalidValue, "query.cursor")
	w.get("/api/widgets?q=%00").problem(problem.MalformedRequest, "query.q")
	w.get("/api/widgets?q=%ff").problem(problem.MalformedRequest, "query.q")
	w.get("/api/widgets?q=%zz").problem(problem.MalformedRequest, "query")
	w.get("/api/widgets?min_position=" + events.Position{Era: 7, Tx: 1, Seq: 1}.String()).problem(problem.PositionGone)
}

func TestPanic(t *testing.T) {
	w := newWorld(t, serveWidgets(t))
	r := w.get("/api/panic")
	r.problem(problem.Internal)
	if strings.Contains(string(r.Body), "secret") {
		t.Errorf("%s", r.Body)
	}
	if r.Status != http.StatusInternalServerError || !json.Valid(r.Body) {
		t.Errorf("%d %s", r.Status, r.Body)
	}
}
