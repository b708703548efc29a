package engine

import (
	"context"
	"errors"
	"fmt"

	json "github.com/go-json-experiment/json"
	"github.com/google/uuid"

	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/process"
)

// errMoved says that another operation has to be loaded to decide; the whole is tried again.
var errMoved = errors.New("the object moved")

// handle decides a command to an object of the kind.
func (k *Kind[S]) handle(ctx context.Context, e *Engine, cmd events.Command) (eventstore.Result, error) {
	c, rejection, err := k.accept(ctx, e, cmd)
	if err != nil {
		return eventstore.Result{}, err
	}
	overtakes := rejection == nil && k.overtakes(cmd)
	for {
		streams, err := k.streams(ctx, e, cmd, overtakes)
		if err != nil {
			return eventstore.Result{}, err
		}
		known, err := e.histories(ctx, streams, k.told(cmd)...)
		if err != nil {
			return eventstore.Result{}, err
		}
		var u *unit[S]
		now := e.Clock()
		meta := cmd.Meta
		meta.Causation = cmd.ID
		r, err := eventstore.RunFrom(ctx, e.Store, cmd.ID, known, func(h []eventstore.History) (eventstore.Append, error) {
			if u, err = newUnit(e, k, now, meta, h); err != nil {
				return eventstore.Append{}, err
			}
			if rejection != nil {
				return u.reject(e, cmd, rejection)
			}
			if p := u.refuses(cmd); p != nil {
				return u.reject(e, cmd, p)
			}
			return u.command(e, cmd, c)
		})
		var taken *eventstore.NameTakenError
		switch {
		case errors.As(err, &taken):
			rejection = nameTaken(taken.Name)
			continue
		case errors.Is(err, errMoved):
			e.recent.forget(cmd.Stream())
			continue
		case err != nil:
			e.recent.forget(streams...)
		case r.Duplicate: // decided by an earlier delivery, whose effect may not have been begun
			e.recent.forget(streams...)
			k.resume(e, cmd.Stream())
		default:
			u.commit(ctx, e, r)
		}
		return r, err
	}
}

// told is what a command says of the streams that it is about.
func (k *Kind[S]) told(cmd events.Command) (known []eventstore.History) {
	if k.Commands[cmd.Verb()].Creates {
		known = append(known, eventstore.History{Stream: cmd.Stream()})
	}
	if c := cmd.Requested; c != nil {
		c.Event.Hash = c.Hash
		known = append(known, eventstore.History{
			Stream: c.Stream, Head: eventstore.Head{Version: c.Version, Hash: c.Hash, At: c.At}, Events: []events.Event{c.Event},
		})
	}
	return known
}

func nameTaken(n eventstore.Name) *problem.Problem {
	p := problem.New(problem.NameTaken, "the name %q is taken", n.Value)
	p.Fields = []problem.Field{{Field: "name", Detail: "is taken; choose another"}}
	return p
}

// accept decodes and prepares a command. A rejection is a decision too; an error leaves the command undecided.
func (k *Kind[S]) accept(ctx context.Context, e *Engine, cmd events.Command) (any, *problem.Problem, error) {
	if !cmd.Deadline.IsZero() && e.Clock().After(cmd.Deadline) {
		return nil, problem.New(problem.DeadlineExceeded, "the command was not taken up before its deadline"), nil
	}
	def, ok := k.Commands[cmd.Verb()]
	if !ok {
		return nil, nil, fmt.Errorf("a %s knows no %q", k.Codec.Kind, cmd.Verb())
	}
	c, err := def.Decode(cmd)
	if err == nil && def.Prepare != nil {
		c, err = def.Prepare(ctx, cmd, c)
	}
	if p := problem.From(err); p != nil {
		return nil, p, nil
	}
	return c, nil, err
}

func (k *Kind[S]) overtakes(cmd events.Command) bool {
	def := k.Commands[cmd.Verb()]
	if def.Overtakes == nil {
		return false
	}
	c, err := def.Decode(cmd)
	return err == nil && def.Overtakes(c)
}

// streams that a decision may write: the object, the command's operation, and the operation that it overtakes.
func (k *Kind[S]) streams(ctx context.Context, e *Engine, cmd events.Command, overtakes bool) ([]events.Stream, error) {
	streams := []events.Stream{cmd.Stream()}
	if cmd.Meta.Operation != uuid.Nil && cmd.Step == "" {
		streams = append(streams, events.NewStream(operation.Kind, cmd.Meta.Operation))
	}
	if !overtakes {
		return streams, nil
	}
	h, err := e.histories(ctx, streams[:1])
	if err != nil {
		return nil, err
	}
	s, err := k.Decider.Fold(k.Codec, h[0])
	if err != nil {
		return nil, err
	}
	if i := k.Intent(s); i != nil && i.Operation != uuid.Nil && i.Operation != cmd.Meta.Operation {
		streams = append(streams, events.NewStream(operation.Kind, i.Operation))
	}
	return streams, nil
}

// refuses says no before the decider is asked.
func (u *unit[S]) refuses(cmd events.Command) *problem.Problem {
	if cmd.IfVersion != nil && *cmd.IfVersion != u.resource.Head.Version {
		return problem.New(problem.VersionConflict, "the object is at version %d, not %d", u.resource.Head.Version, *cmd.IfVersion)
	}
	return nil
}

// command decides a command and what its operation does then.
func (u *unit[S]) command(e *Engine, cmd events.Command, c any) (eventstore.Append, error) {
	last, err := u.decide(c)
	if p := problem.From(err); p != nil {
		return u.reject(e, cmd, p)
	}
	if err != nil {
		return eventstore.Append{}, err
	}
	if i := u.kind.Intent(u.before); i != nil && !u.waits(i.Command) {
		if _, ok := u.ops[i.Operation]; !ok && i.Operation != uuid.Nil && (i.ReplyTo == nil || *i.ReplyTo == u.address) {
			return eventstore.Append{}, errMoved
		}
		if err := u.end(e, *i, nil, problem.New(problem.Superseded, "a forced command overtook this one"), ""); err != nil {
			return eventstore.Append{}, err
		}
	}
	own := u.ops[cmd.Meta.Operation]
	def := u.kind.Commands[cmd.Verb()]
	switch {
	case cmd.Step == "" && own != nil && def.Plan != nil:
		u.operation(own, operation.Started{Node: e.Node, Steps: def.Plan(cmd, u.state)})
		err = u.advance(own)
	case u.waits(cmd.ID) && own != nil:
		u.operation(own, operation.Started{Node: e.Node})
	case !u.waits(cmd.ID):
		err = u.end(e, cmd.Intent(), last, nil, "")
	}
	if err != nil {
		return eventstore.Append{}, err
	}
	return u.result(e.open())
}

// reject forgets what was decided and records the "no".
func (u *unit[S]) reject(e *Engine, cmd events.Command, p *problem.Problem) (eventstore.Append, error) {
	u.append.Events, u.append.Claim, u.append.Release, u.send = nil, nil, nil, nil
	u.state, u.rejects = u.before, true
	for _, o := range u.ops {
		o.append.Events = nil
	}
	if err := u.end(e, cmd.Intent(), nil, p, ""); err != nil {
		return eventstore.Append{}, err
	}
	a, err := u.result(e.open())
	a.Rejection = p
	return a, err
}

// commit goes on after an append: what is known now, the commands that were recorded, and the effect that the object
// waits for, which comes last because it ends the context of the effect before it.
func (u *unit[S]) commit(ctx context.Context, e *Engine, r eventstore.Result) {
	resource := u.resource.After(r)
	e.recent.put(resource)
	for _, o := range u.ops {
		o.history = o.history.After(r)
		if o.state.Ended {
			e.recent.forget(o.history.Stream)
			if err := e.Bus.Ended(o.state.ID, o.history.Events); err != nil { // who waits for it finds out a little later
				e.Log.WarnContext(ctx, "tell that an operation has ended", "ended", o.state.ID, "err", err)
			}
		} else {
			e.recent.put(o.history)
		}
	}
	e.publish(ctx, u.send)
	i := u.kind.Intent(u.state)
	if i == nil || u.rejects {
		return
	}
	known := []eventstore.History{resource}
	if o := u.ops[i.Operation]; o != nil {
		known = append(known, o.history)
	}
	u.kind.schedule(e, known, u.state)
}

// fact records what an effect has observed. log is the driver's own words for the operation's log.
func (k *Kind[S]) fact(ctx context.Context, e *Engine, known []eventstore.History, i events.Intent, c any, p *problem.Problem, log string) error {
	var u *unit[S]
	now := e.Clock()
	id := events.DerivedID(i.Command, "fact")
	r, err := eventstore.RunFrom(ctx, e.Store, id, known, func(h []eventstore.History) (eventstore.Append, error) {
		var err error
		meta := events.Meta{
			Actor: "service:" + e.Domain, Auth: "internal", Operation: i.Operation, Causation: i.Command,
		}
		if u, err = newUnit(e, k, now, meta, h); err != nil {
			return eventstore.Append{}, err
		}
		u.inherit()
		if !u.waits(i.Command) {
			return eventstore.Append{}, errNothing // overtaken
		}
		last, err := u.decide(c)
		if err != nil {
			return eventstore.Append{}, err
		}
		if !u.waits(i.Command) {
			if err := u.end(e, i, last, p, log); err != nil {
				return eventstore.Append{}, err
			}
		}
		return u.result(e.open())
	})
	if errors.Is(err, errNothing) {
		return nil
	}
	if err != nil || r.Duplicate {
		for _, h := range known {
			e.recent.forget(h.Stream)
		}
	}
	if err != nil {
		return err
	}
	if r.Duplicate { // recorded by an attempt whose answer was lost
		e.effects.schedule(known[0].Stream, known[0].Head.Version+1, func(ctx context.Context) { k.current(ctx, e, known[0].Stream) })
		return nil
	}
	crashpoint.Reach(crashpoint.FactRecorded, i.Type)
	u.commit(ctx, e, r)
	return nil
}

// inherit takes actor, reason and trace from the event that began the effect.
func (u *unit[S]) inherit() {
	if m, ok := cause(u.resource, u.meta.Causation, u.meta.Operation); ok {
		u.meta.OnBehalfOf, u.meta.Reason, u.meta.Correlation, u.meta.Traceparent = m.Principal(), m.Reason, m.Correlation, m.Traceparent
	}
}

// cause is what the last event of an object says that a command caused, or that its operation did.
func cause(h eventstore.History, command, operation uuid.UUID) (m events.Meta, ok bool) {
	for j := len(h.Events) - 1; j >= 0; j-- {
		if m := h.Events[j].Meta; m.Causation == command || m.Operation == operation {
			return m, true
		}
	}
	return m, false
}

// stepEnded takes in how a step went that another service took, or that the operation is to be canceled.
func (k *Kind[S]) stepEnded(ctx context.Context, e *Engine, stream, resource events.Stream, cmd events.Command, end stepEnd) (eventstore.Result, error) {
	known, err := e.histories(ctx, []events.Stream{resource, stream})
	if err != nil {
		return eventstore.Result{}, err
	}
	var u *unit[S]
	now := e.Clock()
	r, err := eventstore.RunFrom(ctx, e.Store, cmd.ID, known, func(h []eventstore.History) (eventstore.Append, error) {
		meta := cmd.Meta
		var err error
		if u, err = newUnit(e, k, now, meta, h); err != nil {
			return eventstore.Append{}, err
		}
		u.inherit()
		u.meta.Actor, u.meta.Auth = "service:"+e.Domain, "internal"
		o := u.ops[stream.ID()]
		if cmd.Verb() == "cancel" {
			u.meta = cmd.Meta
			if p := process.Cancel(o.state); p != nil {
				u.rejects = true
				a, err := u.result(e.open())
				a.Rejection = p
				return a, err
			}
			u.operation(o, operation.CancelRequested{}) // the step under way goes on to its end
			return u.result(e.open())
		}
		if !o.state.Ended {
			u.stepEnded(o, events.Intent{Step: end.Step, Command: end.Command}, end.Result, end.Problem, end.Log)
			if err := u.advance(o); err != nil {
				return eventstore.Append{}, err
			}
		}
		a, err := u.result(e.open())
		if errors.Is(err, errNothing) {
			err = nil
		}
		return a, err
	})
	switch {
	case err != nil:
		e.recent.forget(resource, stream)
	case r.Duplicate:
		e.recent.forget(resource, stream)
		k.resume(e, resource)
	default:
		u.commit(ctx, e, r)
	}
	return r, err
}

// StrictData decodes a command's data as JSON into T; what T does not know is refused.
func StrictData[T any](cmd events.Command) (T, error) {
	var v T
	if err := json.Unmarshal(cmd.Data, &v, json.RejectUnknownMembers(true)); len(cmd.Data) > 0 && err != nil {
		return v, problem.New(problem.MalformedRequest, "the data of %s does not fit: %v", cmd.Type, err)
	}
	return v, nil
}
