// Package engine runs the aggregates of a service: commands in, decisions recorded, effects performed from the
// recorded intent, facts recorded. What it does is in the store before it is done and looked for in the world before
// it is done again, so that the process may end at any instant.
//
// An object and the operation on it are always appended together: the decision and the operation's start, the fact
// and the operation's end.
package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/trace"
)

// ErrAgain marks a failure of an effect after which a later attempt may succeed.
var ErrAgain = errors.New("try again")

// Bus is what the engine needs of the bus.
type Bus interface {
	Publish(ctx context.Context, cmd events.Command, attempt int) error
	Consume(ctx context.Context, from []events.Address, handle bus.Handler) error
	Ended(operation uuid.UUID, recorded []events.Event) error
}

// Options of an engine.
type Options struct {
	Domain string // "compute"
	Node   uuid.UUID
	Store  eventstore.Store
	Bus    Bus
	Log    *slog.Logger
	// Metrics may be those of other engines too; nil counts for nobody.
	Metrics *Metrics
	Clock   func() time.Time // nil: time.Now
	// Effects is how many attempts at effects run at once; 0 means 256.
	Effects int
	// Backoff is the pause after the first failed attempt of an effect, doubled up to 64 times; 0 means 250 ms.
	Backoff time.Duration
	// Rescan is how often intents without an outcome are looked for; 0 means 30 s.
	Rescan time.Duration
}

// undoTime is how long a process may take to take a step back after its own deadline.
const undoTime = 10 * time.Minute

// publishTime bounds the publication of a command; one that fails is swept later.
const publishTime = 2 * time.Second

// Engine runs the kinds of one service on one node.
type Engine struct {
	Options
	address events.Address
	kinds   map[string]kind
	effects *effects
	recent  recent
}

// New returns an engine without kinds.
func New(o Options) *Engine {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics()
	}
	if o.Effects == 0 {
		o.Effects = 256
	}
	if o.Backoff == 0 {
		o.Backoff = 250 * time.Millisecond
	}
	if o.Rescan == 0 {
		o.Rescan = 30 * time.Second
	}
	e := &Engine{Options: o, address: events.Address{Domain: o.Domain, Node: o.Node.String()}, kinds: map[string]kind{}}
	e.effects = newEffects(o.Effects)
	e.recent.m = map[events.Stream]eventstore.History{}
	return e
}

// Register adds a kind. All kinds are registered before Run.
func Register[S any](e *Engine, k *Kind[S]) { e.kinds[k.Codec.Kind] = k }

// open is what the heads of streams with an intent of this engine say.
func (e *Engine) open() string { return e.address.Domain + "/" + e.address.Node }

// Run takes up every intent without an outcome, then consumes commands, until ctx ends. Effects under way are cut off
// then and taken up by the next Run.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.effects.start(ctx)
	defer e.effects.wait()
	wg.Go(func() { e.rescan(ctx) })
	return e.Bus.Consume(ctx, []events.Address{e.address, {Domain: e.Domain, Node: events.AnyNode}}, e.handle)
}

// rescan takes up intents without an outcome at once and then again and again.
func (e *Engine) rescan(ctx context.Context) {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = e.Rescan
		if err := e.resume(ctx); err != nil && ctx.Err() == nil {
			e.Log.Warn("look for unfinished intents", "err", err)
			wait = min(e.Rescan, time.Second)
		}
	}
}

func (e *Engine) resume(ctx context.Context) error {
	streams, err := e.Store.Open(ctx, e.open())
	if err != nil {
		return err
	}
	for _, s := range streams {
		if k, ok := e.kinds[s.Kind()]; ok {
			k.resume(e, s)
		}
	}
	return nil
}

// handle decides one command, within its trace. What follows from the decision, and is recorded with it, belongs to the
// decision's span, also after a crash.
func (e *Engine) handle(ctx context.Context, cmd events.Command) (bus.Decision, error) {
	begun := time.Now()
	ctx, span := trace.Start(trace.Continue(ctx, cmd.Meta.Traceparent), trace.Consumer, "decide "+cmd.Type,
		"horcrux.command", cmd.ID.String(), "horcrux.target", cmd.Target.String())
	ctx = trace.Operation(ctx, cmd.Meta.Operation)
	if span.Recorded() {
		cmd.Meta.Traceparent = trace.Parent(ctx)
	}
	r, err := e.decide(ctx, cmd)
	how := decided(r, err)
	e.Metrics.decided(e.Domain, cmd.Type, how, time.Since(begun))
	if err != nil {
		span.End(err)
		return bus.Decision{}, fmt.Errorf("decide %s %s: %w", cmd.Type, cmd.ID, err)
	}
	e.Log.DebugContext(ctx, "decided", "command", cmd.ID, "type", cmd.Type, "target", cmd.Target, "outcome", how)
	if p := r.Outcome.Rejection; p != nil {
		span.Set("horcrux.code", string(p.Code))
	}
	span.Done(how)
	crashpoint.Reach(crashpoint.Decided, cmd.Type)
	return bus.Decision{Command: cmd.ID, Position: r.Outcome.Position, Rejection: r.Outcome.Rejection}, nil
}

func (e *Engine) decide(ctx context.Context, cmd events.Command) (eventstore.Result, error) {
	if cmd.Kind() == operation.Kind {
		return e.handleOperation(ctx, cmd)
	}
	if k, ok := e.kinds[cmd.Kind()]; ok {
		return k.handle(ctx, e, cmd)
	}
	return eventstore.Result{}, errors.New("it is of no kind that this service knows")
}

// handleOperation decides a command to an operation that this engine owns.
func (e *Engine) handleOperation(ctx context.Context, cmd events.Command) (eventstore.Result, error) {
	var end stepEnd
	switch cmd.Verb() {
	case "step_ended":
		if err := json.Unmarshal(cmd.Data, &end); err != nil {
			return eventstore.Result{}, fmt.Errorf("data of step_ended: %w", err)
		}
	case "cancel":
	default:
		return eventstore.Result{}, fmt.Errorf("an operation knows no %q", cmd.Verb())
	}
	op := events.NewStream(operation.Kind, cmd.Target)
	histories, err := e.histories(ctx, []events.Stream{op})
	if err != nil {
		return eventstore.Result{}, err
	}
	state, err := foldProcess(histories[0])
	if err != nil {
		return eventstore.Result{}, err
	}
	k, ok := e.kinds[state.Resource.Kind()]
	if !ok {
		return eventstore.Result{}, fmt.Errorf("operation %s is over %q, of no kind that this service knows", cmd.Target, state.Resource)
	}
	return k.stepEnded(ctx, e, op, state.Resource, cmd, end)
}

// publish sends the commands that an append recorded. What fails here is swept later.
func (e *Engine) publish(ctx context.Context, cmds []events.Command) {
	for _, c := range cmds {
		pctx, cancel := context.WithTimeout(ctx, publishTime)
		if err := e.Bus.Publish(pctx, c, 0); err != nil {
			e.Log.WarnContext(ctx, "publish a command; it will be swept", "command", c.ID, "type", c.Type, "err", err)
		}
		cancel()
	}
}
