package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// stepEnd is the data of operation.step_ended: how a step went that another service took.
type stepEnd struct {
	Step    string           `json:"step"`
	Command uuid.UUID        `json:"command"`
	Result  json.RawMessage  `json:"result,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
	Log     string           `json:"log,omitempty"`
}

// reply is the command that tells the owner of a process how its step ended.
func reply(i events.Intent, end stepEnd, meta events.Meta, now time.Time) events.Command {
	end.Step, end.Command = i.Step, i.Command
	data, err := json.Marshal(end)
	if err != nil {
		panic(fmt.Sprintf("engine: marshal step end: %v", err)) // its fields are plain
	}
	meta.Causation = i.Command
	return events.Command{
		ID: events.DerivedID(i.Command, "ended"), To: *i.ReplyTo, Type: "operation.step_ended", Target: i.Operation,
		Data: data, Meta: meta, Deadline: now.AddDate(100, 0, 0), // what it tells has happened, however late it is heard
	}
}

// Expire rejects a command that no service has decided before its deadline, whoever that service was: an operation
// does not stay queued for ever because a node is gone. Where a service decides at the same moment, the first of the
// two counts.
func Expire(ctx context.Context, store eventstore.Store, cmd events.Command, now time.Time) error {
	p := problem.New(problem.DeadlineExceeded, "no %s service took the command up before its deadline", cmd.To.Domain)
	meta := cmd.Meta
	meta.Actor, meta.Auth, meta.OnBehalfOf, meta.Causation = "service:relay", "internal", cmd.Meta.Actor, cmd.ID
	return reject(ctx, store, cmd, p, meta, now)
}

// Drop rejects a command that was taken from the dead-letter queue.
func Drop(ctx context.Context, store eventstore.Store, cmd events.Command, actor string, now time.Time) error {
	if cmd.Kind() == operation.Kind {
		return problem.New(problem.InvalidState, "the command tells a process how its step ended; it can only be published again")
	}
	meta := cmd.Meta
	meta.Actor, meta.Causation = actor, cmd.ID
	return reject(ctx, store, cmd, problem.New(problem.Dropped, "the command was dropped from the dead-letter queue"), meta, now)
}

// reject records the "no" to an undecided command on its operation, or for the process whose step it is.
func reject(ctx context.Context, store eventstore.Store, cmd events.Command, p *problem.Problem, meta events.Meta, now time.Time) error {
	var streams []events.Stream
	if cmd.Step == "" && cmd.Kind() != operation.Kind {
		streams = append(streams, events.NewStream(operation.Kind, cmd.Meta.Operation))
	}
	_, err := eventstore.Run(ctx, store, cmd.ID, streams, func(h []eventstore.History) (eventstore.Append, error) {
		a := eventstore.Append{Meta: meta, Rejection: p}
		if cmd.Step != "" && cmd.ReplyTo != nil {
			a.Send = []events.Command{reply(cmd.Intent(), stepEnd{Problem: p}, meta, now)}
		}
		for _, h := range h {
			s, err := foldProcess(h)
			if err != nil {
				return a, err
			}
			if s.Ended {
				return a, errNothing
			}
			a.Streams = append(a.Streams, eventstore.StreamAppend{
				Stream: h.Stream, Head: h.Head, Events: []events.Draft{operation.Codec.Encode(operation.Failed{Problem: p})},
			})
		}
		return a, nil
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	return err
}
