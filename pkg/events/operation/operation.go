// Package operation is the language of operations: what a mutating call becomes. The gateway appends Requested;
// everything after it is appended by the service that owns the resource, together with the resource's own events.
package operation

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Kind of the streams of operations.
const Kind = "operation"

// Requested is the first event: the accepted request.
type Requested struct {
	Type       string          `json:"type"` // "vm.create"
	Command    uuid.UUID       `json:"command"`
	Resource   events.Stream   `json:"resource"` // whose owner decides
	Collection string          `json:"collection"`
	Data       json.RawMessage `json:"data,omitempty"` // of the command
	Deadline   time.Time       `json:"deadline"`
}

// Call is a command of a process to be.
type Call struct {
	To     events.Address  `json:"to"`
	Type   string          `json:"type"` // "volume.create"
	Target uuid.UUID       `json:"target"`
	Data   json.RawMessage `json:"data,omitempty"`
}

// StepPlan is one step of a process, and how it is taken back.
type StepPlan struct {
	Name string `json:"name"` // "disk 0"; unique in the plan
	Do   Call   `json:"do"`
	Undo *Call  `json:"undo,omitempty"` // nil: nothing to take back
	// NoReturn: once this step has succeeded nothing is taken back any more.
	NoReturn bool `json:"no_return,omitempty"`
}

// Started says that the owner accepted the command. Steps is the plan of a process, empty for a single effect.
type Started struct {
	Node  uuid.UUID  `json:"node"`
	Steps []StepPlan `json:"steps,omitempty"`
}

// StepSucceeded ends a step. Result is what later steps need.
type StepSucceeded struct {
	Step   string          `json:"step"`
	Result json.RawMessage `json:"result,omitempty"`
}

// StepFailed ends a step. The steps before it are then taken back in reverse order.
type StepFailed struct {
	Step    string           `json:"step"`
	Problem *problem.Problem `json:"problem"`
	Log     string           `json:"log,omitempty"`
}

// StepUndone says that a step was taken back. Problem is set where that failed: what the step made is left behind.
type StepUndone struct {
	Step    string           `json:"step"`
	Problem *problem.Problem `json:"problem,omitempty"`
	Log     string           `json:"log,omitempty"`
}

// Succeeded ends an operation.
type Succeeded struct{}

// Failed ends an operation, also one that was rejected at its decision.
type Failed struct {
	Problem *problem.Problem `json:"problem"`
	Log     string           `json:"log,omitempty"` // what the driver said; for the operation's log only
}

// CancelRequested asks a process to stop and take its steps back.
type CancelRequested struct{}

// Canceled ends an operation.
type Canceled struct{}

// Codec of operations.
var Codec = events.NewCodec(Kind,
	events.TypeOf[Requested]("operation.requested"),
	events.TypeOf[Started]("operation.started"),
	events.TypeOf[StepSucceeded]("operation.step_succeeded"),
	events.TypeOf[StepFailed]("operation.step_failed"),
	events.TypeOf[StepUndone]("operation.step_undone"),
	events.TypeOf[Succeeded]("operation.succeeded"),
	events.TypeOf[Failed]("operation.failed"),
	events.TypeOf[CancelRequested]("operation.cancel_requested"),
	events.TypeOf[Canceled]("operation.canceled"),
)

// State of an operation.
type State string

// The states.
const (
	StateQueued    State = "queued"
	StateRunning   State = "running"
	StateSucceeded State = "succeeded"
	StateFailed    State = "failed"
	StateCanceled  State = "canceled"
)

// Ended says whether nothing more happens.
func (s State) Ended() bool {
	return s == StateSucceeded || s == StateFailed || s == StateCanceled
}

// Step as users see it. State is pending, running, succeeded, failed, undoing (the operation was cancelled while the
// step ran: it goes on to its end and is then taken back) or undone.
type Step struct {
	Name  string            `json:"name"`
	State string            `json:"state"`
	Error *problem.Document `json:"error"`
}

// View is an operation as the API returns it.
type View struct {
	ID         uuid.UUID         `json:"id"`
	Type       string            `json:"type"`
	State      State             `json:"state"`
	Progress   int               `json:"progress"` // per cent
	Actor      string            `json:"actor"`
	Resource   string            `json:"resource"` // "/api/vms/…"
	ResourceID uuid.UUID         `json:"resource_id"`
	Node       *uuid.UUID        `json:"node"`
	Steps      []Step            `json:"steps"`
	Error      *problem.Document `json:"error"`
	Position   string            `json:"position"` // of its last event
	CreatedAt  time.Time         `json:"created_at"`
	StartedAt  *time.Time        `json:"started_at"`
	EndedAt    *time.Time        `json:"ended_at"`
	Version    int64             `json:"version"`
}

// Apply folds one event into the view of an operation.
func Apply(v View, e events.Event) (View, error) {
	event, err := Codec.Decode(e)
	if err != nil {
		return v, err
	}
	v.Version, v.Position = e.Version, e.Position.String()
	v.Steps = append([]Step{}, v.Steps...)
	at := e.At
	end := func(s State, p *problem.Problem) { v.State, v.Error, v.EndedAt = s, p.Document(), &at }
	step := func(name, state string, p *problem.Problem) {
		for i := range v.Steps {
			if v.Steps[i].Name == name {
				v.Steps[i].State, v.Steps[i].Error = state, p.Document()
			}
		}
	}
	switch ev := event.(type) {
	case Requested:
		v.ID, v.Type, v.State, v.Actor = e.Stream.ID(), ev.Type, StateQueued, e.Meta.Actor
		v.Resource, v.ResourceID = "/api/"+ev.Collection+"/"+ev.Resource.ID().String(), ev.Resource.ID()
		v.CreatedAt = at
	case Started:
		v.State, v.StartedAt = StateRunning, &at
		if ev.Node != uuid.Nil {
			v.Node = &ev.Node
		}
		for _, s := range ev.Steps {
			v.Steps = append(v.Steps, Step{Name: s.Name, State: "pending"})
		}
		if len(v.Steps) > 0 {
			v.Steps[0].State = "running"
		}
	case StepSucceeded:
		canceled := slices.ContainsFunc(v.Steps, func(s Step) bool { return s.State == "undoing" })
		step(ev.Step, "succeeded", nil)
		done := 0
		for i := range v.Steps {
			if v.Steps[i].State == "succeeded" {
				done++
			}
		}
		if done < len(v.Steps) && !canceled { // what comes next of a cancelled one is not in the view
			v.Steps[done].State = "running"
			v.Progress = 100 * done / len(v.Steps)
		}
	case StepFailed:
		step(ev.Step, "failed", ev.Problem)
	case StepUndone:
		step(ev.Step, "undone", ev.Problem)
	case CancelRequested:
		for i := range v.Steps {
			if v.Steps[i].State == "running" {
				v.Steps[i].State = "undoing"
			}
		}
	case Succeeded:
		end(StateSucceeded, nil)
		v.Progress = 100
	case Failed:
		end(StateFailed, ev.Problem)
	case Canceled:
		end(StateCanceled, nil)
	}
	return v, nil
}
