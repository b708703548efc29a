package engine

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Kind is all that a service says about one kind of object. S is the decider's private state.
type Kind[S any] struct {
	Codec   *events.Codec
	Decider eventstore.Decider[S]
	// Commands by verb: "start".
	Commands map[string]Command[S]
	// Intent is the effect that a state waits for, nil when it waits for none. Pure.
	Intent func(S) *events.Intent
	// Perform brings about the effect of the state's intent and returns what was observed, as a command for the
	// decider. It looks before it acts: it may have run before, wholly or in part. It fails with
	//   - an error that wraps ErrAgain when a later attempt may succeed: it is tried again until the intent's deadline;
	//   - anything else when it never will: the problem in its chain, or effect_failed, becomes the fact Failed.
	Perform func(ctx context.Context, id uuid.UUID, s S) (fact any, err error)
	// Failed is the fact that the effect of an intent came to nothing, as a command for the decider. It may observe
	// what holds instead.
	Failed func(ctx context.Context, id uuid.UUID, s S, p *problem.Problem) any
	// Ended is the command for the decider when a process over this object has ended, with its problem or nil. The
	// decider may answer with no events. Nil for kinds without processes. Pure.
	Ended func(process uuid.UUID, p *problem.Problem) any
	// Names are the unique names that an event claims and releases. Pure.
	Names func(S, any) (claim, release []eventstore.Name)
}

// Command is one verb of a kind.
type Command[S any] struct {
	// Decode reads the command's data, strictly, into what the decider takes. Pure.
	Decode func(events.Command) (any, error)
	// Creates says that the command makes its target, which therefore need not be loaded.
	Creates bool
	// Prepare looks up the facts that the decision needs. It runs before the decision for commands that arrive from
	// outside, and not for the steps of a process over the same object, which are decided with the event before them.
	// A *problem.Problem rejects the command; any other error leaves it undecided and is tried again.
	Prepare func(ctx context.Context, cmd events.Command, decoded any) (any, error)
	// Plan makes a process of the command: its steps, from the state after the decision. Pure.
	Plan func(events.Command, S) []operation.StepPlan
	// Overtakes says that the command may end an intent that is under way. What that was for fails as superseded.
	Overtakes func(decoded any) bool
}

// kind is a Kind without its type parameter.
type kind interface {
	handle(ctx context.Context, e *Engine, cmd events.Command) (eventstore.Result, error)
	stepEnded(ctx context.Context, e *Engine, op events.Stream, resource events.Stream, cmd events.Command, end stepEnd) (eventstore.Result, error)
	resume(e *Engine, stream events.Stream)
	overtakes(cmd events.Command) bool
}
