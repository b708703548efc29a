package engine

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/pkg/trace"
)

// effects runs at most one effect for a stream at a time, and so many attempts in all. An effect of a newer version of
// the stream cuts an older one off, waits for its end, and then runs; an older one is not run at all.
type effects struct {
	slots   chan struct{}
	mu      sync.Mutex
	ctx     context.Context // nil before start
	running map[events.Stream]*running
	last    map[events.Stream]int64 // version of the last effect that ran; forgotten now and then
	wg      sync.WaitGroup
}

type running struct {
	version int64
	cancel  context.CancelFunc
	next    *waiting
}

type waiting struct {
	version int64
	do      func(context.Context)
}

// remembered bounds what is known of effects that have ended. It is there for a schedule that comes late, by
// milliseconds.
const remembered = 10_000

func newEffects(n int) *effects {
	return &effects{slots: make(chan struct{}, n), running: map[events.Stream]*running{}, last: map[events.Stream]int64{}}
}

func (x *effects) start(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx = ctx
}

// wait waits for the effects under way, whose context has ended.
func (x *effects) wait() { x.wg.Wait() }

// schedule runs do for the intent of a stream at a version, unless a newer or the same one is at hand.
func (x *effects) schedule(stream events.Stream, version int64, do func(context.Context)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx == nil || x.ctx.Err() != nil || version <= x.last[stream] {
		return // the next Run takes it up, or it has been
	}
	r, ok := x.running[stream]
	switch {
	case !ok:
		x.launch(stream, &waiting{version, do})
	case version > r.version && (r.next == nil || version > r.next.version):
		r.cancel()
		r.next = &waiting{version, do}
	}
}

// idle runs do for a stream that nothing runs for.
func (x *effects) idle(stream events.Stream, do func(context.Context)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if _, ok := x.running[stream]; !ok && x.ctx != nil && x.ctx.Err() == nil {
		x.launch(stream, &waiting{do: do})
	}
}

// learn says which version of a stream the effect is of that runs for it without having known: one that is scheduled for
// the same version is then no other. An effect that was cut off meanwhile is not to go on.
func (x *effects) learn(ctx context.Context, stream events.Stream, version int64) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	if r := x.running[stream]; r != nil {
		r.version = max(r.version, version)
	}
	return true
}

// launch needs the lock.
func (x *effects) launch(stream events.Stream, w *waiting) {
	ctx, cancel := context.WithCancel(x.ctx)
	r := &running{version: w.version, cancel: cancel}
	x.running[stream] = r
	x.wg.Go(func() {
		defer cancel()
		w.do(ctx)
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.running, stream)
		if len(x.last) >= remembered {
			clear(x.last)
		}
		x.last[stream] = max(x.last[stream], r.version)
		if r.next != nil && x.ctx.Err() == nil {
			x.launch(stream, r.next)
		}
	})
}

// attempt runs do in one of the slots, false when ctx ended first.
func (x *effects) attempt(ctx context.Context, do func(context.Context)) bool {
	s := &slot{of: x.slots}
	if !s.take(ctx) {
		return false
	}
	defer s.give()
	do(context.WithValue(ctx, slotKey{}, s))
	return true
}

// slot is an attempt's place among those that run at once.
type slot struct {
	of   chan struct{}
	held bool
}

type slotKey struct{}

func (s *slot) take(ctx context.Context) bool {
	select {
	case s.of <- struct{}{}:
		s.held = true
	case <-ctx.Done():
	}
	return s.held
}

func (s *slot) give() {
	if s.held {
		s.held = false
		<-s.of
	}
}

// Pause is for an effect that waits for something in the world, such as a guest that powers off: others run meanwhile
// in its place. It fails when ctx ends, which has to be the one that Perform was given or made of it.
func Pause(ctx context.Context, d time.Duration) error {
	if s, ok := ctx.Value(slotKey{}).(*slot); ok {
		s.give()
		defer s.take(ctx)
	}
	if !sleep(ctx, d) {
		return ctx.Err()
	}
	return nil
}

// schedule runs the effect that a state waits for. known are the histories of the object and, where it is this
// engine's, of the operation.
func (k *Kind[S]) schedule(e *Engine, known []eventstore.History, s S) {
	if i := k.Intent(s); i != nil {
		e.effects.schedule(known[0].Stream, known[0].Head.Version, func(ctx context.Context) { k.perform(ctx, e, known, s, *i) })
	}
}

// resume takes up the intent of an object, as it is when its turn comes, unless its effect is under way.
func (k *Kind[S]) resume(e *Engine, stream events.Stream) {
	e.effects.idle(stream, func(ctx context.Context) { k.current(ctx, e, stream) })
}

// current performs the effect that an object waits for now.
func (k *Kind[S]) current(ctx context.Context, e *Engine, stream events.Stream) {
	known, s, err := k.load(ctx, e, stream)
	if err != nil {
		if ctx.Err() == nil {
			e.Log.WarnContext(ctx, "take up an intent; it is tried again", "stream", stream, "err", err)
		}
		return
	}
	if i := k.Intent(s); i != nil && e.effects.learn(ctx, stream, known[0].Head.Version) {
		k.perform(ctx, e, known, s, *i)
	}
}

// load returns an object, with its history and that of the operation that its intent is for.
func (k *Kind[S]) load(ctx context.Context, e *Engine, stream events.Stream) (known []eventstore.History, s S, err error) {
	if known, err = e.Store.Load(ctx, stream); err != nil {
		return nil, s, err
	}
	if s, err = k.Decider.Fold(k.Codec, known[0]); err != nil {
		return nil, s, err
	}
	if i := k.Intent(s); i != nil && i.Operation != uuid.Nil && (i.ReplyTo == nil || *i.ReplyTo == e.address) {
		op, err := e.Store.Load(ctx, events.NewStream(operation.Kind, i.Operation))
		if err != nil {
			return nil, s, err
		}
		known = append(known, op...)
	}
	return known, s, nil
}

// perform brings an effect about and records the fact, trying again until the intent's deadline. When ctx ends it
// leaves everything as it is: whoever ended it goes on. It belongs to the trace of the event that began it.
func (k *Kind[S]) perform(ctx context.Context, e *Engine, known []eventstore.History, s S, i events.Intent) {
	stream := known[0].Stream
	began, _ := cause(known[0], i.Command, i.Operation)
	ctx = trace.Operation(trace.Continue(ctx, began.Traceparent), i.Operation)
	log := e.Log.With("stream", stream, "intent", i.Type, "command", i.Command)
	for pause := e.Backoff; ; pause = min(2*pause, 64*e.Backoff) {
		var fact any
		var err error
		if !e.effects.attempt(ctx, func(ctx context.Context) { fact, err = k.try(ctx, e, stream, s, i) }) || ctx.Err() != nil {
			return
		}
		if err == nil {
			log.DebugContext(ctx, "effect came about")
			k.record(ctx, e, known, i, fact, nil, "")
			return
		}
		p := problem.From(err)
		if errors.Is(err, ErrAgain) {
			if e.Clock().Before(i.Deadline) {
				log.InfoContext(ctx, "effect is tried again", "err", err, "in", pause)
				if !sleep(ctx, min(pause, time.Until(i.Deadline))) {
					return
				}
				continue
			}
			p = problem.New(problem.DeadlineExceeded, "%s did not come about before its deadline", i.Type)
		}
		if p == nil {
			p = problem.New(problem.EffectFailed, "%s failed; the operation's log says more", i.Type)
		}
		log.WarnContext(ctx, "effect failed", "err", err, "code", p.Code)
		k.record(ctx, e, known, i, k.Failed(ctx, stream.ID(), s, p), p, err.Error())
		return
	}
}

// lastLook is how long an attempt may take whose intent's deadline has passed, which a restart can bring about: what
// an earlier life did has to be seen all the same.
const lastLook = 10 * time.Second

// attemptTime is what is left until an intent's deadline.
func (e *Engine) attemptTime(i events.Intent) time.Duration {
	if left := i.Deadline.Sub(e.Clock()); left > 0 {
		return left
	}
	return lastLook
}

// try makes one attempt, which ends with the intent's deadline. A panic is a failure of this effect alone.
func (k *Kind[S]) try(ctx context.Context, e *Engine, stream events.Stream, s S, i events.Intent) (fact any, err error) {
	ctx, span := trace.Start(ctx, trace.Internal, "effect "+i.Type, "horcrux.command", i.Command.String(), "horcrux.target", stream.ID().String())
	ctx = trace.Operation(ctx, i.Operation)
	attempted := e.Metrics.attempt(e.Domain, i.Type)
	defer func() {
		span.End(err, ErrAgain)
		attempted(err)
	}()
	defer func() {
		if v := recover(); v != nil {
			e.Log.ErrorContext(ctx, "effect panicked", "stream", stream, "intent", i.Type, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("effect panicked: %v", v)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, e.attemptTime(i))
	defer cancel()
	crashpoint.Reach(crashpoint.BeforeEffect, i.Type)
	fact, err = k.Perform(ctx, stream.ID(), s)
	crashpoint.Reach(crashpoint.AfterEffect, i.Type)
	if err != nil && ctx.Err() != nil && problem.From(err) == nil {
		err = fmt.Errorf("%w: %w", ErrAgain, err)
	}
	return fact, err
}

// record appends a fact, trying again for as long as the store does not answer.
func (k *Kind[S]) record(ctx context.Context, e *Engine, known []eventstore.History, i events.Intent, fact any, p *problem.Problem, text string) {
	for pause := e.Backoff; ; pause = min(2*pause, 64*e.Backoff) {
		err := k.fact(ctx, e, known, i, fact, p, text)
		if err == nil || ctx.Err() != nil {
			return
		}
		e.Log.ErrorContext(ctx, "record a fact", "stream", known[0].Stream, "intent", i.Type, "err", err)
		if !sleep(ctx, pause) {
			return
		}
	}
}

// sleep says whether the time has passed without ctx ending.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
