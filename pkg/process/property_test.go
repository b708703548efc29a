package process_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/process"
)

// run is a process with the world that carries its steps out.
type run struct {
	t      *rapid.T
	plan   []operation.StepPlan
	state  process.State
	log    []events.Event
	done   []string // steps that succeeded, in order
	undone []string // steps that were taken back, in order
	failed bool
	passed bool // the point of no return
	asked  bool // to cancel
	end    any
}

// record takes an event in, and sees that the state before stays what it was.
func (r *run) record(ev any) {
	before, copied := r.state, deepCopy(r.t, r.state)
	d := operation.Codec.Encode(ev)
	r.log = append(r.log, events.Event{Type: d.Type, Schema: d.Schema, Data: d.Data})
	r.state = process.Evolve(before, stream, ev)
	if !reflect.DeepEqual(before, copied) {
		r.t.Fatalf("%T changed its argument:\n%+v\nwas\n%+v", ev, before, copied)
	}
	if process.Evolve(before, stream, ev); !reflect.DeepEqual(before, copied) {
		r.t.Fatalf("%T changed its argument when folded again", ev)
	}
}

// cancel asks to stop, whenever rapid likes, as a user does.
func (r *run) cancel() {
	if !rapid.Bool().Draw(r.t, "cancel") {
		return
	}
	if p := process.Cancel(r.state); p != nil {
		if !r.asked && !r.failed && !r.passed {
			r.t.Fatalf("cancel is refused: %v", p)
		}
		return
	}
	if r.asked || r.failed || r.passed {
		r.t.Fatal("cancel is accepted too late")
	}
	r.asked = true
	r.record(operation.CancelRequested{})
}

// step carries out what Next says.
func (r *run) step(a process.Action) {
	i := slices.IndexFunc(r.plan, func(p operation.StepPlan) bool { return p.Name == a.Step })
	if i < 0 {
		r.t.Fatalf("no such step: %+v", a)
	}
	p, works := r.plan[i], rapid.IntRange(0, 3).Draw(r.t, "works") > 0
	// A cancel meets the step while it is under way.
	r.cancel()
	if a.Undo {
		if r.passed || p.Undo == nil || !reflect.DeepEqual(*a.Call, *p.Undo) {
			r.t.Fatalf("takes back %+v, past the point of no return: %t", a, r.passed)
		}
		r.undone = append(r.undone, p.Name)
		ev := operation.StepUndone{Step: p.Name}
		if !works {
			ev.Problem = stuck
		}
		r.record(ev)
		return
	}
	if len(r.undone) > 0 || r.failed || len(r.done) != i || !reflect.DeepEqual(*a.Call, p.Do) {
		r.t.Fatalf("goes on with %+v after %v, failed: %t, taken back: %v", a, r.done, r.failed, r.undone)
	}
	if !works {
		r.failed = true
		r.record(operation.StepFailed{Step: p.Name, Problem: full, Log: "no space"})
		return
	}
	r.done, r.passed = append(r.done, p.Name), r.passed || p.NoReturn
	r.record(operation.StepSucceeded{Step: p.Name, Result: json.RawMessage(fmt.Sprintf("%q", p.Name))})
}

// TestAnyProcess: whatever steps fail, and whenever it is cancelled, a process ends, and leaves behind what it has to.
func TestAnyProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &run{t: t, plan: drawPlan(t)}
		r.record(requested)
		if _, ok := process.Next(r.state); ok {
			t.Fatal("acts before it is accepted")
		}
		r.record(operation.Started{Steps: r.plan})
		for turns := 0; r.end == nil; turns++ {
			if turns > 2*len(r.plan) {
				t.Fatalf("does not end: %+v", r.state)
			}
			a, ok := process.Next(r.state)
			if !ok {
				t.Fatalf("neither acts nor ends: %+v", r.state)
			}
			if again, _ := process.Next(r.state); !reflect.DeepEqual(again, a) {
				t.Fatalf("decides %+v, then %+v", a, again)
			}
			if a.Call != nil {
				r.step(a)
				continue
			}
			r.end = a.End
			r.record(a.End)
		}
		r.ended()
	})
}

func (r *run) ended() {
	t := r.t
	if a, ok := process.Next(r.state); ok || process.Cancel(r.state) == nil {
		t.Fatalf("goes on after its end: %+v", a)
	}
	var back []string // what must have been taken back
	switch end := r.end.(type) {
	case operation.Succeeded:
		if r.failed || len(r.done) != len(r.plan) || r.asked && !r.passed {
			t.Fatalf("succeeded after %v, failed: %t, cancelled: %t", r.done, r.failed, r.asked)
		}
	case operation.Failed:
		if !r.failed || end.Problem == nil || end.Problem.Code != full.Code || end.Log != "no space" {
			t.Fatalf("failed: %t, as %+v", r.failed, end)
		}
	case operation.Canceled:
		if !r.asked || r.failed || r.passed {
			t.Fatalf("cancelled, asked: %t, failed: %t, past the point of no return: %t", r.asked, r.failed, r.passed)
		}
	default:
		t.Fatalf("ends with %T", end)
	}
	if _, succeeded := r.end.(operation.Succeeded); !succeeded && !r.passed {
		for _, p := range slices.Backward(r.plan[:len(r.done)]) {
			if p.Undo != nil {
				back = append(back, p.Name)
			}
		}
	}
	if !slices.Equal(r.undone, back) {
		t.Fatalf("%T after %v took back %v, want %v", r.end, r.done, r.undone, back)
	}
	var again process.State
	for _, e := range r.log {
		ev, err := operation.Codec.Decode(e)
		if err != nil {
			t.Fatal(err)
		}
		again = process.Evolve(again, stream, ev)
	}
	if !reflect.DeepEqual(again, r.state) {
		t.Fatalf("replay differs:\n%+v\n%+v", again, r.state)
	}
}

func drawPlan(t *rapid.T) []operation.StepPlan {
	plan := make([]operation.StepPlan, rapid.IntRange(0, 6).Draw(t, "steps"))
	for i := range plan {
		name := fmt.Sprintf("step %d", i)
		plan[i] = operation.StepPlan{Name: name, Do: call("do-" + name), NoReturn: rapid.IntRange(0, 4).Draw(t, "no return") == 0}
		if rapid.Bool().Draw(t, "undoable") {
			plan[i].Undo = undo("undo-" + name)
		}
	}
	return plan
}

// TestCommandIDsDiffer: no two of the commands of any two operations have one id, whatever the steps are called.
func TestCommandIDsDiffer(t *testing.T) {
	names := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "step", "true", "a\x00true", "a\x00false", "a"}))
	rapid.Check(t, func(t *rapid.T) {
		seen := map[uuid.UUID]string{}
		for _, op := range []uuid.UUID{id, machine.ID()} {
			for _, step := range rapid.SliceOfDistinct(names, rapid.ID[string]).Draw(t, "steps") {
				for _, undo := range []bool{false, true} {
					what := fmt.Sprintf("%s %q undo %t", op, step, undo)
					c := process.CommandID(op, step, undo)
					if other, ok := seen[c]; ok {
						t.Fatalf("%s and %s have one id", what, other)
					}
					if c != process.CommandID(op, step, undo) {
						t.Fatalf("%s: another id the second time", what)
					}
					seen[c] = what
				}
			}
		}
	})
}

// deepCopy copies a state with all that it points to.
func deepCopy(t *rapid.T, s process.State) process.State {
	c := s
	if s.Steps != nil {
		c.Steps = slices.Clone(s.Steps)
		for i, st := range s.Steps {
			if st.Undo != nil {
				u := *st.Undo
				c.Steps[i].Undo = &u
			}
		}
	}
	if s.Results != nil {
		c.Results = map[string]json.RawMessage{}
		for k, v := range s.Results {
			c.Results[k] = slices.Clone(v)
		}
	}
	if s.Problem != nil {
		p := *s.Problem
		c.Problem = &p
	}
	if !reflect.DeepEqual(c, s) {
		t.Fatalf("copied %+v as %+v", s, c)
	}
	return c
}
