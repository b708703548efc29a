package engine

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// effects runs at most one effect for a stream at a time, and so many in all. An effect for a stream that has one
// under way cuts that off, waits for its end, and then runs.
type effects struct {
	slots   chan struct{}
	mu      sync.Mutex
	ctx     context.Context // nil before start
	running map[events.Stream]*running
	wg      sync.WaitGroup
}

type running struct {
	command uuid.UUID
	cancel  context.CancelFunc
	next    func(context.Context) // what runs after this one, nil for nothing
	nextFor uuid.UUID
}

func newEffects(n int) *effects {
	return &effects{slots: make(chan struct{}, n), running: map[events.Stream]*running{}}
}

func (x *effects) start(ctx context.Context) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.ctx = ctx
}

// wait waits for the effects under way, whose context has ended.
func (x *effects) wait() { x.wg.Wait() }

// schedule runs do for the intent of a stream. It does nothing where that runs already.
func (x *effects) schedule(stream events.Stream, command uuid.UUID, do func(context.Context)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ctx == nil || x.ctx.Err() != nil {
		return // the next Run takes it up
	}
	if r, ok := x.running[stream]; ok {
		if r.command == command {
			return
		}
		r.cancel()
		r.next, r.nextFor = do, command
		return
	}
	x.launch(stream, command, do)
}

// launch needs the lock.
func (x *effects) launch(stream events.Stream, command uuid.UUID, do func(context.Context)) {
	ctx, cancel := context.WithCancel(x.ctx)
	r := &running{command: command, cancel: cancel}
	x.running[stream] = r
	x.wg.Go(func() {
		defer cancel()
		select {
		case x.slots <- struct{}{}:
			do(ctx)
			<-x.slots
		case <-ctx.Done():
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		delete(x.running, stream)
		if r.next != nil && x.ctx.Err() == nil {
			x.launch(stream, r.nextFor, r.next)
		}
	})
}

// schedule runs the effect that a state waits for. known are the histories of the object and, where it is this
// engine's, of the operation.
func (k *Kind[S]) schedule(e *Engine, known []eventstore.History, s S) {
	if i := k.Intent(s); i != nil {
		e.effects.schedule(known[0].Stream, i.Command, func(ctx context.Context) { k.perform(ctx, e, known, s, *i) })
	}
}

// perform brings an effect about and records the fact, trying again until the intent's deadline. When ctx ends it
// leaves everything as it is: whoever ended it goes on.
func (k *Kind[S]) perform(ctx context.Context, e *Engine, known []eventstore.History, s S, i events.Intent) {
	stream := known[0].Stream
	log := e.Log.With("stream", stream, "intent", i.Type, "command", i.Command, "operation", i.Operation)
	pause := e.Backoff
	for {
		crashpoint.Reach(crashpoint.BeforeEffect, i.Type)
		fact, err := k.Perform(ctx, stream.ID(), s)
		crashpoint.Reach(crashpoint.AfterEffect, i.Type)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.record(ctx, e, known, i, fact, nil, "")
			return
		}
		p := problem.From(err)
		if errors.Is(err, ErrAgain) {
			if e.Clock().Before(i.Deadline) {
				log.Info("effect is tried again", "err", err, "in", pause)
				if !sleep(ctx, pause) {
					return
				}
				pause = min(2*pause, 64*e.Backoff)
				continue
			}
			p = problem.New(problem.DeadlineExceeded, "%s did not come about before its deadline", i.Type)
		}
		if p == nil {
			p = problem.New(problem.EffectFailed, "%s failed; the operation's log says more", i.Type)
		}
		log.Warn("effect failed", "err", err, "code", p.Code)
		k.record(ctx, e, known, i, k.Failed(ctx, stream.ID(), s, p), p, err.Error())
		return
	}
}

// record appends a fact, trying again for as long as the store does not answer.
func (k *Kind[S]) record(ctx context.Context, e *Engine, known []eventstore.History, i events.Intent, fact any, p *problem.Problem, text string) {
	for pause := e.Backoff; ; pause = min(2*pause, 64*e.Backoff) {
		err := k.fact(ctx, e, known, i, fact, p, text)
		if err == nil || ctx.Err() != nil {
			return
		}
		e.Log.Error("record a fact", "stream", known[0].Stream, "intent", i.Type, "err", err)
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
