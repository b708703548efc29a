package engine

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/process"
)

// unit is one append in the making: an object, the operation on it, and an operation that is overtaken. It is pure.
type unit[S any] struct {
	kind     *Kind[S]
	address  events.Address
	now      time.Time
	meta     events.Meta
	resource eventstore.History
	before   S
	state    S
	append   eventstore.StreamAppend
	ops      map[uuid.UUID]*op
	send     []events.Command
	rejects  bool // what was decided is a "no"
}

// op is an operation's side of a unit.
type op struct {
	history eventstore.History
	state   process.State
	append  eventstore.StreamAppend
}

func foldProcess(h eventstore.History) (process.State, error) {
	var s process.State
	for _, e := range h.Events {
		v, err := operation.Codec.Decode(e)
		if err != nil {
			return s, err
		}
		s = process.Evolve(s, h.Stream, v)
	}
	return s, nil
}

// newUnit folds the histories: the object's, then those of operations.
func newUnit[S any](e *Engine, k *Kind[S], now time.Time, meta events.Meta, histories []eventstore.History) (*unit[S], error) {
	s, err := k.Decider.Fold(k.Codec, histories[0])
	if err != nil {
		return nil, err
	}
	meta.Node = e.Node
	u := &unit[S]{
		kind: k, address: e.address, now: now, meta: meta, resource: histories[0], before: s, state: s,
		append: eventstore.StreamAppend{Stream: histories[0].Stream, Head: histories[0].Head},
		ops:    map[uuid.UUID]*op{},
	}
	for _, h := range histories[1:] {
		st, err := foldProcess(h)
		if err != nil {
			return nil, err
		}
		u.ops[h.Stream.ID()] = &op{history: h, state: st, append: eventstore.StreamAppend{Stream: h.Stream, Head: h.Head}}
	}
	return u, nil
}

// decide runs the object's decider and takes its events in. It returns the last of them.
func (u *unit[S]) decide(c any) (last json.RawMessage, err error) {
	evs, err := u.kind.Decider.Decide(u.state, c)
	if err != nil {
		return nil, err
	}
	for _, ev := range evs {
		if u.kind.Names != nil {
			claim, release := u.kind.Names(u.state, ev)
			u.append.Claim = append(u.append.Claim, claim...)
			u.append.Release = append(u.append.Release, release...)
		}
		d := u.kind.Codec.Encode(ev)
		u.append.Events = append(u.append.Events, d)
		u.state = u.kind.Decider.Evolve(u.state, ev)
		last = d.Data
	}
	return last, nil
}

// operation takes an event of an operation in.
func (u *unit[S]) operation(o *op, ev any) {
	o.append.Events = append(o.append.Events, operation.Codec.Encode(ev))
	o.state = process.Evolve(o.state, o.history.Stream, ev)
}

// waits says whether the object now waits for the effect of a command.
func (u *unit[S]) waits(command uuid.UUID) bool {
	i := u.kind.Intent(u.state)
	return i != nil && i.Command == command
}

// end records how the effect or decision that an intent names has ended: on the operation itself, on the process of
// this engine whose step it was, or by a reply to the engine that runs the process.
func (u *unit[S]) end(e *Engine, i events.Intent, result json.RawMessage, p *problem.Problem, log string) error {
	o := u.ops[i.Operation]
	switch {
	case i.Step == "" && o != nil && !o.state.Ended:
		if !o.state.Started && p == nil {
			u.operation(o, operation.Started{Node: e.Node})
		}
		if p != nil {
			u.operation(o, operation.Failed{Problem: p, Log: log})
		} else {
			u.operation(o, operation.Succeeded{})
		}
	case i.Step != "" && i.ReplyTo != nil && *i.ReplyTo != u.address:
		u.send = append(u.send, reply(i, stepEnd{Result: result, Problem: p, Log: log}, u.meta, u.now))
	case i.Step != "" && o != nil && !o.state.Ended:
		u.stepEnded(o, i, result, p, log)
		return u.advance(o)
	}
	return nil
}

func (u *unit[S]) stepEnded(o *op, i events.Intent, result json.RawMessage, p *problem.Problem, log string) {
	switch {
	case i.Command == process.CommandID(o.state.ID, i.Step, true):
		u.operation(o, operation.StepUndone{Step: i.Step, Problem: p, Log: log})
	case p != nil:
		u.operation(o, operation.StepFailed{Step: i.Step, Problem: p, Log: log})
	default:
		u.operation(o, operation.StepSucceeded{Step: i.Step, Result: result})
	}
}

// advance lets a process go on until it waits for something or has ended. A step over this very object is decided
// here, in the same append; any other is sent.
func (u *unit[S]) advance(o *op) error {
	for {
		next, ok := process.Next(o.state)
		if !ok {
			return nil
		}
		if next.Call == nil {
			u.operation(o, next.End)
			var p *problem.Problem
			switch end := next.End.(type) {
			case operation.Failed:
				p = end.Problem
			case operation.Canceled:
				p = problem.New(problem.Canceled, "the operation was canceled")
			}
			_, err := u.decide(u.kind.Ended(o.state.ID, p))
			return err
		}
		cmd := u.stepCommand(o, next)
		if cmd.To != u.address || cmd.Stream() != u.resource.Stream {
			u.send = append(u.send, cmd)
			return nil
		}
		c, err := u.kind.Commands[cmd.Verb()].Decode(cmd)
		if err != nil {
			return err
		}
		result, err := u.decide(c)
		if err != nil {
			p := problem.From(err)
			if p == nil {
				return err
			}
			u.stepEnded(o, cmd.Intent(), nil, p, "")
			continue
		}
		if u.waits(cmd.ID) {
			return nil
		}
		u.stepEnded(o, cmd.Intent(), result, nil, "")
	}
}

func (u *unit[S]) stepCommand(o *op, a process.Action) events.Command {
	deadline := o.state.Deadline
	if a.Undo {
		deadline = u.now.Add(undoTime)
	}
	meta := u.meta
	meta.Operation = o.state.ID
	meta.Causation = o.state.Command
	self := u.address
	return events.Command{
		ID: process.CommandID(o.state.ID, a.Step, a.Undo), To: a.Call.To, Type: a.Call.Type, Target: a.Call.Target,
		Data: a.Call.Data, Meta: meta, Deadline: deadline, Step: a.Step, ReplyTo: &self, Inputs: o.state.Results,
	}
}

// errNothing says that there is nothing to append.
var errNothing = errors.New("nothing to append")

// result is the append. open is what the head of the object says while it waits for an effect. Streams that get no
// event are compared: what was decided holds only for them as they were.
func (u *unit[S]) result(open string) (eventstore.Append, error) {
	a := eventstore.Append{Meta: u.meta, Send: u.send}
	if len(u.append.Events) > 0 {
		if u.kind.Intent(u.state) != nil {
			u.append.Open = open
			a.MoreFollows = true // the fact
		}
		u.settleNames()
	}
	nothing := len(u.append.Events) == 0 && len(a.Send) == 0
	a.Streams = append(a.Streams, u.append)
	for _, o := range u.ops {
		nothing = nothing && len(o.append.Events) == 0
		a.Streams = append(a.Streams, o.append)
	}
	if nothing && !u.rejects {
		return a, errNothing
	}
	slices.SortFunc(a.Streams[min(1, len(a.Streams)):], func(x, y eventstore.StreamAppend) int {
		if x.Stream < y.Stream {
			return -1
		}
		return 1
	})
	return a, nil
}

// settleNames drops names that one append both claims and releases.
func (u *unit[S]) settleNames() {
	for _, n := range slices.Clone(u.append.Release) {
		if i := slices.Index(u.append.Claim, n); i >= 0 {
			u.append.Claim = slices.Delete(u.append.Claim, i, i+1)
			u.append.Release = slices.DeleteFunc(u.append.Release, func(m eventstore.Name) bool { return m == n })
		}
	}
}
