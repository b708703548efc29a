package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A robot is built of parts, which another service makes; it has one effect of its own, walking.
type (
	robot struct {
		Exists, Ended, Walked bool
		Process               uuid.UUID
		Intent                *events.Intent
	}
	built     struct{ Operation uuid.UUID }
	scrapped  struct{}
	assembled struct{}
	walking   struct{ events.Intent }
	walked    struct{}
	stumbled  struct{ Problem *problem.Problem }
	halted    struct{ events.Intent }

	build    struct{ events.Intent }
	assemble struct{}
	walk     struct{ events.Intent }
	halt     struct{ events.Intent }
	fact     struct{ Problem *problem.Problem }
	ended    struct{ Problem *problem.Problem }
)

var robotCodec = events.NewCodec("robot", events.TypeOf[built]("robot.built"), events.TypeOf[scrapped]("robot.scrapped"),
	events.TypeOf[assembled]("robot.assembled"), events.TypeOf[walking]("robot.walking"), events.TypeOf[walked]("robot.walked"),
	events.TypeOf[stumbled]("robot.stumbled"), events.TypeOf[halted]("robot.halted"))

var robotDecider = eventstore.Decider[robot]{
	Initial: func() robot { return robot{} },
	Decide: func(r robot, c any) ([]any, error) {
		switch c := c.(type) {
		case build:
			if r.Exists {
				return nil, problem.New(problem.InvalidState, "exists")
			}
			return []any{built{Operation: c.Operation}}, nil
		case assemble:
			return []any{assembled{}}, nil
		case walk:
			if r.Intent != nil {
				return nil, problem.New(problem.InvalidState, "walks")
			}
			return []any{walking{c.Intent}}, nil
		case halt:
			return []any{halted{c.Intent}}, nil
		case fact:
			if c.Problem != nil {
				return []any{stumbled{c.Problem}}, nil
			}
			return []any{walked{}}, nil
		case ended:
			if c.Problem != nil {
				return []any{scrapped{}}, nil
			}
			return nil, nil
		}
		return nil, fmt.Errorf("no such command %T", c)
	},
	Evolve: func(r robot, ev any) robot {
		switch ev := ev.(type) {
		case built:
			r.Exists, r.Process = true, ev.Operation
		case assembled:
			r.Process = uuid.Nil
		case scrapped:
			r.Ended = true
		case walking:
			r.Intent = &ev.Intent
		case halted:
			r.Intent = &ev.Intent
		case walked:
			r.Intent, r.Walked = nil, true
		case stumbled:
			r.Intent = nil
		}
		return r
	},
}

// A part is made by an effect.
type (
	part   struct{ Intent *events.Intent }
	asked  struct{ events.Intent }
	made   struct{ Serial int }
	broken struct{ Problem *problem.Problem }
	melted struct{}
)

var partCodec = events.NewCodec("part", events.TypeOf[asked]("part.asked"), events.TypeOf[made]("part.made"),
	events.TypeOf[broken]("part.broken"), events.TypeOf[melted]("part.melted"))

var partDecider = eventstore.Decider[part]{
	Initial: func() part { return part{} },
	Decide: func(p part, c any) ([]any, error) {
		switch c := c.(type) {
		case walk:
			return []any{asked{c.Intent}}, nil
		case halt:
			return []any{melted{}}, nil
		case fact:
			if c.Problem != nil {
				return []any{broken{c.Problem}}, nil
			}
			return []any{made{Serial: 7}}, nil
		}
		return nil, fmt.Errorf("no such command %T", c)
	},
	Evolve: func(p part, ev any) part {
		switch ev := ev.(type) {
		case asked:
			p.Intent = &ev.Intent
		case made, broken, melted:
			p.Intent = nil
		}
		return p
	},
}

// world is what effects change.
type world struct {
	mu    sync.Mutex
	did   map[string]int
	fails map[string]error
	holds map[string]chan struct{} // an effect waits for its channel
	waits bool                     // walking pauses until that is over
}

func (w *world) stopWaiting() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = false
}

// wait pauses for as long as it has to.
func (w *world) wait(ctx context.Context) error {
	for {
		w.mu.Lock()
		waits := w.waits
		w.did["wait"]++
		w.mu.Unlock()
		if !waits {
			return nil
		}
		if err := engine.Pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

func (w *world) do(ctx context.Context, what string) error {
	w.mu.Lock()
	hold, err := w.holds[what], w.fails[what]
	w.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == errPanic { //nolint:errorlint // the very one
		panic("stumbled badly")
	}
	w.did[what]++
	return err
}

func (w *world) set(what string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails[what] = err
}

func (w *world) count(what string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.did[what]
}

// wire delivers commands in process; deaf loses them.
type wire struct {
	mu   sync.Mutex
	to   map[events.Address]chan events.Command
	deaf bool
}

func (w *wire) channel(a events.Address) chan events.Command {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.to[a] == nil {
		w.to[a] = make(chan events.Command, 100)
	}
	return w.to[a]
}

func (w *wire) Publish(_ context.Context, cmd events.Command, _ int) error {
	if w.deaf {
		return errors.New("lost")
	}
	w.channel(cmd.To) <- cmd
	return nil
}

func (w *wire) Ended(uuid.UUID, []events.Event) error { return nil }

func (w *wire) Consume(ctx context.Context, from []events.Address, handle bus.Handler) error {
	a, b := w.channel(from[0]), w.channel(from[1])
	for {
		var cmd events.Command
		select {
		case cmd = <-a:
		case cmd = <-b:
		case <-ctx.Done():
			return nil
		}
		if _, err := handle(ctx, cmd); err != nil && ctx.Err() == nil {
			panic(err)
		}
	}
}

// counted counts how often histories are loaded, and loses answers.
type counted struct {
	*memory.Store
	loads atomic.Int64
	loses atomic.Bool // the answer of the next append of a fact, which is recorded
}

func (c *counted) Append(ctx context.Context, a eventstore.Append) (eventstore.Result, error) {
	r, err := c.Store.Append(ctx, a)
	if a.Meta.Auth == "internal" && c.loses.CompareAndSwap(true, false) {
		return eventstore.Result{}, eventstore.ErrUnavailable
	}
	return r, err
}

func (c *counted) Load(ctx context.Context, streams ...events.Stream) ([]eventstore.History, error) {
	c.loads.Add(1)
	return c.Store.Load(ctx, streams...)
}

type bench struct {
	*testing.T
	store *counted
	wire  *wire
	world *world
	node  uuid.UUID
	stop  func()

	within time.Duration // deadline of what is asked
	slots  int           // for effects

	log         *slog.Logger
	metrics     *engine.Metrics
	traceparent string // of what is asked
}

// errPanic makes an effect panic.
var errPanic = errors.New("panic")

func newBench(t *testing.T) *bench {
	b := &bench{
		T: t, within: time.Minute, log: slog.New(slog.DiscardHandler), metrics: engine.NewMetrics(), store: &counted{Store: memory.New(nil)}, wire: &wire{to: map[events.Address]chan events.Command{}}, node: events.NewID(),
		world: &world{did: map[string]int{}, fails: map[string]error{}, holds: map[string]chan struct{}{}},
	}
	b.run()
	t.Cleanup(func() { b.stop() })
	return b
}

// run starts both services.
func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, domain := range []string{"robots", "parts"} {
		e := engine.New(engine.Options{
			Domain: domain, Node: b.node, Store: b.store, Bus: b.wire, Log: b.log, Metrics: b.metrics, Backoff: time.Millisecond, Effects: b.slots,
		})
		if domain == "robots" {
			engine.Register(e, b.robots())
		} else {
			engine.Register(e, b.parts())
		}
		wg.Go(func() {
			if err := e.Run(ctx); err != nil {
				b.Errorf("%s: %v", domain, err)
			}
		})
	}
	b.stop = func() { cancel(); wg.Wait() }
}

func (b *bench) robots() *engine.Kind[robot] {
	parts := events.Address{Domain: "parts", Node: b.node.String()}
	self := events.Address{Domain: "robots", Node: b.node.String()}
	return &engine.Kind[robot]{
		Codec: robotCodec, Decider: robotDecider, Intent: func(r robot) *events.Intent { return r.Intent },
		Perform: func(ctx context.Context, _ uuid.UUID, r robot) (any, error) {
			if r.Intent.Type == "robot.walk" {
				if err := b.world.wait(ctx); err != nil {
					return nil, err
				}
			}
			return fact{}, b.world.do(ctx, r.Intent.Type)
		},
		Failed: func(_ context.Context, _ uuid.UUID, _ robot, p *problem.Problem) any { return fact{p} },
		Ended:  func(_ uuid.UUID, p *problem.Problem) any { return ended{p} },
		Names: func(_ robot, ev any) (claim, release []eventstore.Name) {
			n := []eventstore.Name{{Scope: "robot", Value: "r2"}}
			switch ev.(type) {
			case built:
				return n, nil
			case scrapped:
				return nil, n
			}
			return nil, nil
		},
		Commands: map[string]engine.Command[robot]{
			"build": {
				Decode: func(c events.Command) (any, error) { return build{c.Intent()}, nil },
				Plan: func(c events.Command, _ robot) []operation.StepPlan {
					var steps []operation.StepPlan
					for i := range 2 {
						id := events.DerivedID(c.Target, i)
						steps = append(steps, operation.StepPlan{
							Name: fmt.Sprint("part ", i),
							Do:   operation.Call{To: parts, Type: "part.make", Target: id, Data: json.RawMessage(fmt.Sprint(i))},
							Undo: &operation.Call{To: parts, Type: "part.melt", Target: id},
						})
					}
					return append(steps,
						operation.StepPlan{Name: "assemble", Do: operation.Call{To: self, Type: "robot.assemble", Target: c.Target}, NoReturn: true},
						operation.StepPlan{Name: "walk", Do: operation.Call{To: self, Type: "robot.walk", Target: c.Target}})
				},
			},
			"assemble": {Decode: func(c events.Command) (any, error) {
				if len(c.Inputs) != 2 || string(c.Inputs["part 1"]) != `{"Serial":7}` {
					return nil, fmt.Errorf("inputs: %s", c.Inputs)
				}
				return assemble{}, nil
			}},
			"walk": {Decode: func(c events.Command) (any, error) { return walk{c.Intent()}, nil }},
			"halt": {
				Decode:    func(c events.Command) (any, error) { return halt{c.Intent()}, nil },
				Overtakes: func(any) bool { return true },
			},
		},
	}
}

func (b *bench) parts() *engine.Kind[part] {
	return &engine.Kind[part]{
		Codec: partCodec, Decider: partDecider, Intent: func(p part) *events.Intent { return p.Intent },
		Perform: func(ctx context.Context, _ uuid.UUID, p part) (any, error) {
			return fact{}, b.world.do(ctx, p.Intent.Step)
		},
		Failed: func(_ context.Context, _ uuid.UUID, _ part, p *problem.Problem) any { return fact{p} },
		Commands: map[string]engine.Command[part]{
			"make": {Decode: func(c events.Command) (any, error) { return walk{c.Intent()}, nil }},
			"melt": {Decode: func(c events.Command) (any, error) {
				return halt{}, b.world.do(context.Background(), "melt "+c.Step)
			}},
		},
	}
}

// ask records an operation as the gateway does and publishes its command.
func (b *bench) ask(verb string, target uuid.UUID) (op uuid.UUID) {
	b.Helper()
	cmd := b.request(verb, target)
	b.publish(cmd)
	return cmd.Meta.Operation
}

// request records an operation and returns its command.
func (b *bench) request(verb string, target uuid.UUID) events.Command {
	b.Helper()
	op := events.NewID()
	cmd := events.Command{
		ID: events.NewID(), To: events.Address{Domain: "robots", Node: b.node.String()}, Type: "robot." + verb, Target: target,
		Meta: events.Meta{Actor: "uid:0", Operation: op, Traceparent: b.traceparent}, Deadline: time.Now().Add(b.within),
	}
	requested := operation.Codec.Encode(operation.Requested{Type: cmd.Type, Command: cmd.ID, Resource: cmd.Stream(), Deadline: cmd.Deadline})
	r, err := b.store.Append(context.Background(), eventstore.Append{
		Meta: cmd.Meta, Send: []events.Command{cmd},
		Streams: []eventstore.StreamAppend{{Stream: events.NewStream(operation.Kind, op), Events: []events.Draft{requested}}},
	})
	if err != nil {
		b.Fatal(err)
	}
	cmd.Requested = &events.Chained{Event: r.Events[0], Hash: r.Events[0].Hash}
	return cmd
}

func (b *bench) publish(cmd events.Command) {
	b.Helper()
	if err := b.wire.Publish(context.Background(), cmd, 0); err != nil && !b.wire.deaf {
		b.Fatal(err)
	}
}

func (b *bench) view(op uuid.UUID) operation.View {
	b.Helper()
	h, err := b.store.Store.Load(context.Background(), events.NewStream(operation.Kind, op)) // not counted
	if err != nil {
		b.Fatal(err)
	}
	var v operation.View
	for _, e := range h[0].Events {
		if v, err = operation.Apply(v, e); err != nil {
			b.Fatal(err)
		}
	}
	return v
}

// until waits for an operation to be in a state.
func (b *bench) until(op uuid.UUID, want operation.State) operation.View {
	b.Helper()
	var v operation.View
	b.eventually(func() bool { v = b.view(op); return v.State == want }, func() string { return fmt.Sprintf("operation is %+v, want %s", v, want) })
	return v
}

func (b *bench) eventually(ok func() bool, what func() string) {
	b.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			b.Fatal(what())
		}
	}
}

func (b *bench) types(s events.Stream) string {
	b.Helper()
	h, err := b.store.Load(context.Background(), s)
	if err != nil {
		b.Fatal(err)
	}
	var out []string
	for _, e := range h[0].Events {
		out = append(out, e.Type)
	}
	return fmt.Sprint(out)
}

func TestEffect(t *testing.T) {
	t.Run("happens once and ends the operation", func(t *testing.T) {
		b := newBench(t)
		id := events.NewID()
		b.until(b.ask("walk", id), operation.StateSucceeded)
		if n := b.world.count("robot.walk"); n != 1 {
			t.Fatalf("walked %d times", n)
		}
		if got := b.types(events.NewStream("robot", id)); got != "[robot.walking robot.walked]" {
			t.Fatal(got)
		}
	})
	t.Run("that fails for good fails the operation with its problem, without the driver's words", func(t *testing.T) {
		b := newBench(t)
		b.world.set("robot.walk", fmt.Errorf("%w: wrenched", problem.New(problem.InsufficientResources, "no oil")))
		v := b.until(b.ask("walk", events.NewID()), operation.StateFailed)
		if v.Error.Code != problem.InsufficientResources || v.Error.Detail != "no oil" {
			t.Fatalf("%+v", v.Error)
		}
	})
	t.Run("that may succeed later is tried again", func(t *testing.T) {
		b := newBench(t)
		b.world.set("robot.walk", engine.ErrAgain)
		op := b.ask("walk", events.NewID())
		b.eventually(func() bool { return b.world.count("robot.walk") > 2 }, func() string { return "not tried again" })
		b.world.set("robot.walk", nil)
		b.until(op, operation.StateSucceeded)
	})
	t.Run("that panics fails alone", func(t *testing.T) {
		b := newBench(t)
		b.world.set("robot.walk", errPanic)
		if v := b.until(b.ask("walk", events.NewID()), operation.StateFailed); v.Error.Code != problem.EffectFailed {
			t.Fatalf("%+v", v.Error)
		}
		b.world.set("robot.walk", nil)
		b.until(b.ask("walk", events.NewID()), operation.StateSucceeded)
	})
	t.Run("that hangs ends with its deadline", func(t *testing.T) {
		b := newBench(t)
		b.world.holds["robot.walk"] = make(chan struct{})
		b.within = 50 * time.Millisecond
		if v := b.until(b.ask("walk", events.NewID()), operation.StateFailed); v.Error.Code != problem.DeadlineExceeded {
			t.Fatalf("%+v", v.Error)
		}
	})
	t.Run("that waits leaves its place to others", func(t *testing.T) {
		b := newBench(t)
		b.stop()
		b.slots, b.world.waits = 1, true
		b.run()
		first := b.ask("walk", events.NewID())
		b.until(first, operation.StateRunning)
		b.eventually(func() bool { return b.world.count("wait") > 0 }, func() string { return "does not wait" })
		b.until(b.ask("halt", events.NewID()), operation.StateSucceeded)
		b.world.stopWaiting()
		b.until(first, operation.StateSucceeded)
	})
	t.Run("is taken up after a restart", func(t *testing.T) {
		b := newBench(t)
		b.world.holds["robot.walk"] = make(chan struct{})
		op := b.ask("walk", events.NewID())
		b.until(op, operation.StateRunning)
		b.stop()
		close(b.world.holds["robot.walk"])
		b.run()
		b.until(op, operation.StateSucceeded)
	})
	t.Run("is overtaken by force", func(t *testing.T) {
		b := newBench(t)
		b.world.holds["robot.walk"] = make(chan struct{})
		id := events.NewID()
		first := b.ask("walk", id)
		b.until(first, operation.StateRunning)
		b.until(b.ask("halt", id), operation.StateSucceeded)
		if v := b.view(first); v.State != operation.StateFailed || v.Error.Code != problem.Superseded {
			t.Fatalf("%+v", v)
		}
		if b.world.count("robot.walk") != 0 || b.world.count("robot.halt") != 1 {
			t.Fatalf("%v", b.world.did)
		}
	})
}

func TestDecision(t *testing.T) {
	t.Run("a rejection ends the operation and leaves nothing", func(t *testing.T) {
		b := newBench(t)
		b.world.holds["robot.walk"] = make(chan struct{})
		id := events.NewID()
		b.until(b.ask("walk", id), operation.StateRunning)
		v := b.until(b.ask("walk", id), operation.StateFailed)
		if v.Error.Code != problem.InvalidState {
			t.Fatalf("%+v", v.Error)
		}
		if got := b.types(events.NewStream("robot", id)); got != "[robot.walking]" {
			t.Fatal(got)
		}
	})
	t.Run("a taken name is a rejection", func(t *testing.T) {
		b := newBench(t)
		b.until(b.ask("build", events.NewID()), operation.StateSucceeded)
		id := events.NewID()
		v := b.until(b.ask("build", id), operation.StateFailed)
		if v.Error.Code != problem.NameTaken || b.types(events.NewStream("robot", id)) != "[]" {
			t.Fatalf("%+v", v.Error)
		}
	})
	t.Run("a command delivered twice is decided once", func(t *testing.T) {
		b := newBench(t)
		id := events.NewID()
		op := b.ask("walk", id)
		b.until(op, operation.StateSucceeded)
		cmd := events.Command{}
		h, _ := b.store.Load(context.Background(), events.NewStream(operation.Kind, op))
		var req operation.Requested
		if err := json.Unmarshal(h[0].Events[0].Data, &req); err != nil {
			t.Fatal(err)
		}
		cmd.ID, cmd.Type, cmd.Target, cmd.Meta.Operation = req.Command, "robot.walk", id, op
		cmd.To, cmd.Deadline = events.Address{Domain: "robots", Node: b.node.String()}, req.Deadline
		b.publish(cmd)
		b.until(b.ask("walk", id), operation.StateSucceeded) // comes after it
		if n := b.world.count("robot.walk"); n != 2 {
			t.Fatalf("walked %d times for two operations", n)
		}
	})
}

func TestMemory(t *testing.T) {
	t.Run("spares loading what was just appended", func(t *testing.T) {
		b := newBench(t)
		id := events.NewID()
		b.until(b.ask("walk", id), operation.StateSucceeded)
		before := b.store.loads.Load()
		op := b.ask("walk", id)
		b.eventually(func() bool { return b.world.count("robot.walk") == 2 }, func() string { return "did not walk again" })
		if n := b.store.loads.Load() - before; n != 0 {
			t.Errorf("loaded %d times", n)
		}
		b.until(op, operation.StateSucceeded)
	})
	t.Run("does not last where an answer was lost", func(t *testing.T) {
		b := newBench(t)
		id := events.NewID()
		b.store.loses.Store(true)
		b.until(b.ask("walk", id), operation.StateSucceeded)
		before := b.store.loads.Load()
		b.until(b.ask("walk", id), operation.StateSucceeded)
		if b.store.loads.Load() == before {
			t.Error("what is remembered was not recorded last, and nothing was loaded")
		}
		if n := b.world.count("robot.walk"); n != 2 {
			t.Errorf("walked %d times", n)
		}
	})
	t.Run("is no reason to say no", func(t *testing.T) {
		b := newBench(t)
		b.world.holds["robot.walk"] = make(chan struct{})
		id := events.NewID()
		b.until(b.ask("walk", id), operation.StateRunning)
		h, err := b.store.Load(context.Background(), events.NewStream("robot", id))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.store.Append(context.Background(), eventstore.Append{Streams: []eventstore.StreamAppend{{
			Stream: h[0].Stream, Head: h[0].Head, Events: []events.Draft{robotCodec.Encode(walked{})}, // by somebody else
		}}}); err != nil {
			t.Fatal(err)
		}
		op := b.ask("walk", id)
		b.until(op, operation.StateRunning)
		close(b.world.holds["robot.walk"])
		b.until(op, operation.StateSucceeded)
	})
	t.Run("of an operation that somebody ended is no reason to go on", func(t *testing.T) {
		b := newBench(t)
		cmd := b.request("walk", events.NewID())
		if err := engine.Expire(context.Background(), b.store, cmd, time.Now()); err != nil {
			t.Fatal(err)
		}
		b.publish(cmd)
		b.until(b.ask("walk", events.NewID()), operation.StateSucceeded) // comes after it
		if got := b.types(cmd.Stream()); got != "[]" {
			t.Errorf("the robot has %s", got)
		}
		b.until(cmd.Meta.Operation, operation.StateFailed)
	})
}

func TestProcess(t *testing.T) {
	t.Run("goes through its steps over two services", func(t *testing.T) {
		b := newBench(t)
		v := b.until(b.ask("build", events.NewID()), operation.StateSucceeded)
		if len(v.Steps) != 4 || v.Steps[3].State != "succeeded" || v.Progress != 100 {
			t.Fatalf("%+v", v)
		}
		for _, what := range []string{"part 0", "part 1", "robot.walk"} {
			if b.world.count(what) != 1 {
				t.Fatalf("%s: %v", what, b.world.did)
			}
		}
	})
	t.Run("takes back what it did when a step fails", func(t *testing.T) {
		b := newBench(t)
		b.world.set("part 1", problem.New(problem.InsufficientResources, "no steel"))
		id := events.NewID()
		v := b.until(b.ask("build", id), operation.StateFailed)
		if v.Error.Code != problem.InsufficientResources || v.Steps[0].State != "undone" || v.Steps[1].State != "failed" {
			t.Fatalf("%+v", v)
		}
		if b.world.count("melt part 0") != 1 || b.world.count("melt part 1") != 0 {
			t.Fatalf("%v", b.world.did)
		}
		if got := b.types(events.NewStream("robot", id)); got != "[robot.built robot.scrapped]" {
			t.Fatal(got)
		}
		b.world.set("part 1", nil)
		b.until(b.ask("build", events.NewID()), operation.StateSucceeded) // the name is free
	})
	t.Run("takes nothing back past the point of no return", func(t *testing.T) {
		b := newBench(t)
		b.world.set("robot.walk", problem.New(problem.EffectFailed, "lame"))
		v := b.until(b.ask("build", events.NewID()), operation.StateFailed)
		if v.Error.Code != problem.EffectFailed || v.Steps[0].State != "succeeded" || b.world.count("melt part 0") != 0 {
			t.Fatalf("%+v %v", v, b.world.did)
		}
	})
	t.Run("goes on after its commands were lost", func(t *testing.T) {
		b := newBench(t)
		hold := make(chan struct{})
		b.world.holds["part 0"] = hold
		op := b.ask("build", events.NewID())
		b.until(op, operation.StateRunning)
		b.eventually(func() bool { s, _ := b.store.Open(context.Background(), "parts/"+b.node.String()); return len(s) == 1 },
			func() string { return "no part is being made" })
		b.stop()
		b.wire.deaf = true
		close(hold)
		b.run()
		b.eventually(func() bool { return b.world.count("part 0") == 1 }, func() string { return "the part is not made" })
		b.eventually(func() bool { s, _ := b.store.Open(context.Background(), "parts/"+b.node.String()); return len(s) == 0 },
			func() string { return "the part's intent stays open" })
		b.stop()
		b.wire.deaf = false
		b.run()
		due, err := b.store.Due(context.Background(), time.Now().Add(time.Hour), 100)
		if err != nil || len(due) != 1 || due[0].Command.Type != "operation.step_ended" {
			t.Fatalf("%+v %v", due, err)
		}
		if late := time.Now().AddDate(1, 0, 0); due[0].Command.Deadline.Before(late) {
			t.Fatal("the answer to a step can come too late")
		}
		if err := engine.Drop(context.Background(), b.store, due[0].Command, "uid:0", time.Now()); problem.From(err) == nil {
			t.Fatalf("the answer to a step can be dropped: %v", err)
		}
		b.publish(due[0].Command)
		b.until(op, operation.StateSucceeded)
	})
}
