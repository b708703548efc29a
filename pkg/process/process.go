// Package process decides what an operation of several steps does next. It is pure: the state is folded from the
// operation's stream, in which the whole plan is recorded, so that any version of the program can go on with it.
package process

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/problem"
)

// Step is a planned step and what became of it.
type Step struct {
	operation.StepPlan
	Succeeded bool
	Failed    bool
	Undone    bool
}

// State is what the owner of an operation knows of it.
type State struct {
	ID       uuid.UUID
	Type     string
	Command  uuid.UUID
	Resource events.Stream
	Deadline time.Time
	Started  bool
	Ended    bool
	Steps    []Step
	Results  map[string]json.RawMessage // of succeeded steps, by name
	Problem  *problem.Problem           // why it goes back
	Log      string
	Canceled bool // asked to stop
}

// Evolve folds one event of the operation's stream. It ignores what it does not know.
func Evolve(s State, stream events.Stream, event any) State {
	switch ev := event.(type) {
	case operation.Requested:
		s.ID, s.Type, s.Command, s.Resource, s.Deadline = stream.ID(), ev.Type, ev.Command, ev.Resource, ev.Deadline
	case operation.Started:
		s.Started = true
		s.Steps = make([]Step, len(ev.Steps))
		for i, p := range ev.Steps {
			s.Steps[i].StepPlan = p
		}
	case operation.StepSucceeded:
		s = s.with(ev.Step, func(st *Step) { st.Succeeded = true })
		results := map[string]json.RawMessage{ev.Step: ev.Result}
		for k, v := range s.Results {
			results[k] = v
		}
		s.Results = results
	case operation.StepFailed:
		s = s.with(ev.Step, func(st *Step) { st.Failed = true })
		s.Problem, s.Log = ev.Problem, ev.Log
	case operation.StepUndone:
		s = s.with(ev.Step, func(st *Step) { st.Undone = true })
	case operation.CancelRequested:
		s.Canceled = true
	case operation.Succeeded, operation.Failed, operation.Canceled:
		s.Ended = true
	}
	return s
}

// with returns s with one step changed, leaving the steps of s itself alone.
func (s State) with(name string, change func(*Step)) State {
	s.Steps = append([]Step(nil), s.Steps...)
	for i := range s.Steps {
		if s.Steps[i].Name == name {
			change(&s.Steps[i])
		}
	}
	return s
}

// Action is what a process does next: a call of a step, or, when Call is nil, its end.
type Action struct {
	Step string
	Call *operation.Call
	Undo bool // the call takes the step back
	End  any  // operation.Succeeded, Failed or Canceled
}

// Next decides. It is asked when the process starts and whenever a step has ended, never while one is under way; false
// means that there is nothing to do.
func Next(s State) (Action, bool) {
	if !s.Started || s.Ended {
		return Action{}, false
	}
	if s.Problem == nil && (!s.Canceled || s.pastReturn()) {
		for i := range s.Steps {
			if st := &s.Steps[i]; !st.Succeeded {
				return Action{Step: st.Name, Call: &st.Do}, true
			}
		}
		return Action{End: operation.Succeeded{}}, true
	}
	if !s.pastReturn() {
		for i := len(s.Steps) - 1; i >= 0; i-- {
			if st := &s.Steps[i]; st.Succeeded && !st.Undone && st.Undo != nil {
				return Action{Step: st.Name, Call: st.Undo, Undo: true}, true
			}
		}
	}
	if s.Problem == nil {
		return Action{End: operation.Canceled{}}, true
	}
	return Action{End: operation.Failed{Problem: s.Problem, Log: s.Log}}, true
}

// pastReturn says whether a step that has no return has succeeded.
func (s State) pastReturn() bool {
	for _, st := range s.Steps {
		if st.NoReturn && st.Succeeded {
			return true
		}
	}
	return false
}

// Cancel decides whether the process may be told to stop.
func Cancel(s State) *problem.Problem {
	switch {
	case s.Ended:
		return problem.New(problem.InvalidState, "the operation has ended")
	case !s.Started || len(s.Steps) == 0:
		return problem.New(problem.InvalidState, "an operation of one step cannot be canceled")
	case s.Problem != nil || s.Canceled:
		return problem.New(problem.InvalidState, "the operation is being taken back already")
	case s.pastReturn():
		return problem.New(problem.InvalidState, "the operation is past the point where it can be taken back")
	}
	return nil
}

// CommandID is the id of the command of a step: the same after every crash.
func CommandID(op uuid.UUID, step string, undo bool) uuid.UUID {
	return events.DerivedID(op, "step", step, undo)
}
