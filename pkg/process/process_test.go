package process_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/problem"
	"horcrux/pkg/process"
)

var (
	id      = uuid.MustParse("01900000-0000-7000-8000-000000000004")
	machine = events.NewStream("vm", uuid.MustParse("01900000-0000-7000-8000-000000000005"))
	stream  = events.NewStream(operation.Kind, id)
	full    = problem.New(problem.InsufficientResources, "full")
	stuck   = problem.New(problem.EffectFailed, "stuck")
)

// call is what a step does, or undoes, by its name.
func call(verb string) operation.Call { return operation.Call{Type: "part." + verb} }

func undo(verb string) *operation.Call { c := call(verb); return &c }

var (
	requested = operation.Requested{Type: "vm.create", Command: uuid.MustParse("01900000-0000-5000-8000-000000000003"), Resource: machine, Deadline: time.Unix(1000, 0).UTC()}
	// plan: two disks that can be taken back, a look that leaves nothing, the point of no return and a step after it.
	plan = operation.Started{Steps: []operation.StepPlan{
		{Name: "a", Do: call("make-a"), Undo: undo("drop-a")},
		{Name: "look", Do: call("look")},
		{Name: "b", Do: call("make-b"), Undo: undo("drop-b")},
		{Name: "cut", Do: call("cut"), Undo: undo("mend"), NoReturn: true},
		{Name: "end", Do: call("end")},
	}}
)

func given(evs ...any) process.State {
	var s process.State
	for _, ev := range evs {
		s = process.Evolve(s, stream, ev)
	}
	return s
}

func succeeded(steps ...string) []any {
	evs := []any{requested, plan}
	for _, s := range steps {
		evs = append(evs, operation.StepSucceeded{Step: s})
	}
	return evs
}

func with(evs []any, more ...any) []any { return append(append([]any{}, evs...), more...) }

func TestNext(t *testing.T) {
	var (
		failedA   = operation.StepFailed{Step: "a", Problem: full, Log: "no space"}
		failedCut = operation.StepFailed{Step: "cut", Problem: full, Log: "no space"}
		beforeCut = succeeded("a", "look", "b")
		cut       = succeeded("a", "look", "b", "cut")
		cancel    = operation.CancelRequested{}
		undone    = func(step string) any { return operation.StepUndone{Step: step} }
		do        = func(step, verb string) process.Action { return process.Action{Step: step, Call: undo(verb)} }
		back      = func(step, verb string) process.Action {
			return process.Action{Step: step, Call: undo(verb), Undo: true}
		}
		failed  = process.Action{End: operation.Failed{Problem: full, Log: "no space"}}
		nothing = process.Action{}
	)
	for _, c := range []struct {
		name  string
		given []any
		then  process.Action
	}{
		{"nothing of nothing", nil, nothing},
		{"nothing before it is accepted", []any{requested}, nothing},
		{"the first step", []any{requested, plan}, do("a", "make-a")},
		{"the next step", succeeded("a"), do("look", "look")},
		{"the last step", cut, do("end", "end")},
		{"success after the last", succeeded("a", "look", "b", "cut", "end"), process.Action{End: operation.Succeeded{}}},
		{"success of no steps", []any{requested, operation.Started{}}, process.Action{End: operation.Succeeded{}}},
		{"nothing after success", with(cut, operation.StepSucceeded{Step: "end"}, operation.Succeeded{}), nothing},
		{"nothing after a rejection", []any{requested, operation.Failed{Problem: full}}, nothing},
		{"failure of the first step takes nothing back", with(succeeded(), failedA), failed},
		{"failure takes the last one back first", with(beforeCut, failedCut), back("b", "drop-b")},
		{"what leaves nothing is passed over", with(beforeCut, failedCut, undone("b")), back("a", "drop-a")},
		{"failure when all is taken back", with(beforeCut, failedCut, undone("b"), undone("a")), failed},
		{"an undo that failed does not stop the others", with(beforeCut, failedCut, operation.StepUndone{Step: "b", Problem: stuck}), back("a", "drop-a")},
		{"an undo that failed leaves the first problem", with(beforeCut, failedCut, undone("b"), operation.StepUndone{Step: "a", Problem: stuck}), failed},
		{"nothing after failure", with(succeeded(), failedA, operation.Failed{Problem: full}), nothing},
		{"past the point of no return nothing is taken back", with(cut, operation.StepFailed{Step: "end", Problem: stuck}), process.Action{End: operation.Failed{Problem: stuck}}},
		{"cancel takes back", with(beforeCut, cancel), back("b", "drop-b")},
		{"cancel ends when all is taken back", with(beforeCut, cancel, undone("b"), undone("a")), process.Action{End: operation.Canceled{}}},
		{"cancel with nothing to take back", with(succeeded(), cancel), process.Action{End: operation.Canceled{}}},
		{"cancel takes back the step it met, once that has ended", with(succeeded("a", "look"), cancel, operation.StepSucceeded{Step: "b"}), back("b", "drop-b")},
		{"a step that fails after cancel is the reason", with(beforeCut, cancel, failedCut, undone("b"), undone("a")), failed},
		{"cancel that the point of no return overtook goes on", with(beforeCut, cancel, operation.StepSucceeded{Step: "cut"}), do("end", "end")},
		{"nothing after cancel", with(succeeded(), cancel, operation.Canceled{}), nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := process.Next(given(c.given...))
			if ok == reflect.DeepEqual(c.then, nothing) || !reflect.DeepEqual(got, c.then) {
				t.Errorf("got %+v, %t; want %+v", got, ok, c.then)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	for _, c := range []struct {
		name    string
		given   []any
		refused bool
	}{
		{"before it is accepted", []any{requested}, true},
		{"of a single effect", []any{requested, operation.Started{}}, true},
		{"at the first step", succeeded(), false},
		{"before the point of no return", succeeded("a", "look", "b"), false},
		{"past it", succeeded("a", "look", "b", "cut"), true},
		{"again", with(succeeded("a"), operation.CancelRequested{}), true},
		{"of what is taken back already", with(succeeded("a"), operation.StepFailed{Step: "look", Problem: full}), true},
		{"after success", with(succeeded("a", "look", "b", "cut", "end"), operation.Succeeded{}), true},
		{"after failure", with(succeeded(), operation.StepFailed{Step: "a", Problem: full}, operation.Failed{Problem: full}), true},
		{"after cancel", with(succeeded(), operation.CancelRequested{}, operation.Canceled{}), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := process.Cancel(given(c.given...))
			if (p != nil) != c.refused || p != nil && (p.Code != problem.InvalidState || p.Detail == "") {
				t.Errorf("got %v, refused must be %t", p, c.refused)
			}
		})
	}
}

func TestEvolve(t *testing.T) {
	t.Run("keeps the request", func(t *testing.T) {
		s := given(requested)
		want := process.State{ID: id, Type: "vm.create", Command: requested.Command, Resource: machine, Deadline: requested.Deadline}
		if !reflect.DeepEqual(s, want) {
			t.Errorf("got %+v", s)
		}
	})
	t.Run("keeps the results of steps for later ones", func(t *testing.T) {
		s := given(with(succeeded(), operation.StepSucceeded{Step: "a", Result: json.RawMessage(`1`)}, operation.StepSucceeded{Step: "look"})...)
		if want := (map[string]json.RawMessage{"a": json.RawMessage(`1`), "look": nil}); !reflect.DeepEqual(s.Results, want) {
			t.Errorf("got %v, want %v", s.Results, want)
		}
	})
	t.Run("ignores what it does not know", func(t *testing.T) {
		s := given(succeeded("a")...)
		for _, ev := range []any{struct{}{}, nil, operation.StepUndone{Step: "of another plan"}} {
			if got := process.Evolve(s, stream, ev); !reflect.DeepEqual(got, s) {
				t.Errorf("%#v makes %+v of %+v", ev, got, s)
			}
		}
	})
}

// A command that was sent once is known by its id for ever.
func TestCommandID(t *testing.T) {
	for want, got := range map[string]uuid.UUID{
		"dc6fb867-d5c9-51c7-86f8-68160b5ca925": process.CommandID(id, "disk 0", false),
		"a81fe3f8-5739-507c-94df-0bc203d846fe": process.CommandID(id, "disk 0", true),
	} {
		if got.String() != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
