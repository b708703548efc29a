// Package deadletter is what an administrator does with commands that no service could handle.
package deadletter

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/engine"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Bus holds the dead letters.
type Bus interface {
	DeadLetters(ctx context.Context) ([]bus.DeadLetter, error)
	DeadLetter(ctx context.Context, seq uint64) (bus.DeadLetter, error)
	Retry(ctx context.Context, seq uint64) error
	Drop(ctx context.Context, seq uint64) error
}

// Store holds the commands, which are parked while they are dead letters.
type Store interface {
	eventstore.Store
	Unpark(ctx context.Context, command uuid.UUID) error
}

// Office deals with dead letters. Its failures are problems where the caller can mend them.
type Office struct {
	Bus   Bus
	Store Store
	Clock func() time.Time
}

// List returns all, the oldest first.
func (o Office) List(ctx context.Context) ([]bus.DeadLetter, error) { return o.Bus.DeadLetters(ctx) }

// Show returns one.
func (o Office) Show(ctx context.Context, seq uint64) (bus.DeadLetter, error) {
	d, err := o.Bus.DeadLetter(ctx, seq)
	if errors.Is(err, bus.ErrNoDeadLetter) {
		return d, problem.New(problem.NotFound, "there is no dead letter %d", seq)
	}
	return d, err
}

// Retry publishes the command of a letter again; from then on it is swept like any other that is not decided.
func (o Office) Retry(ctx context.Context, seq uint64) (bus.DeadLetter, error) {
	d, err := o.Show(ctx, seq)
	if err != nil {
		return d, err
	}
	if d.Command == nil {
		return d, problem.New(problem.InvalidState, "dead letter %d holds no command; it can only be dropped", seq)
	}
	if err := o.Store.Unpark(ctx, d.Command.ID); err != nil {
		return d, err
	}
	return d, o.Bus.Retry(ctx, seq)
}

// Drop ends what the letter's command was for, then forgets the letter. After a crash between the two the letter is
// still there to be dropped.
func (o Office) Drop(ctx context.Context, seq uint64, actor string) (bus.DeadLetter, error) {
	d, err := o.Show(ctx, seq)
	if err != nil {
		return d, err
	}
	if d.Command != nil {
		if err := engine.Drop(ctx, o.Store, *d.Command, actor, o.Clock()); err != nil {
			return d, err
		}
	}
	return d, o.Bus.Drop(ctx, seq)
}
