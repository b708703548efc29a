package bus

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/trace"
)

// pullTime is how long one request for messages stands at the server, heartbeat how often the server says meanwhile
// that it still does.
const (
	pullTime  = 30 * time.Second
	heartbeat = 2 * time.Second
)

// Handler decides a command. Of its errors, one that wraps eventstore.ErrUnavailable and one that comes of a try's
// deadline are tried again for as long as it takes; any other, and a panic, counts towards Options.MaxDeliveries.
type Handler = func(context.Context, events.Command) (Decision, error)

// Consume handles the commands of the addresses until ctx ends; then it lets calls of handle that are under way come
// to their end, gives back what has not begun, and returns nil.
//
// Commands run concurrently, those to one target in the order in which they were published; a command that failed
// comes again later and is then behind those that followed it. A command is acknowledged after handle has returned,
// so that it may come again after a crash: handle dedupes by the command's id. handle's context is not ended by ctx
// but by Options.TryTime.
//
// It fails only when the connection is closed.
func (b *Bus) Consume(ctx context.Context, addresses []events.Address, handle Handler) error {
	c := &consumer{
		Bus: b, ctx: ctx, handle: handle,
		slots: make(chan struct{}, b.Concurrency),
		held:  map[*message]struct{}{}, lanes: map[uuid.UUID][]*message{},
	}
	beating, stopBeating := context.WithCancel(context.WithoutCancel(ctx))
	var beat sync.WaitGroup
	beat.Go(func() { c.beat(beating) })

	var pulls sync.WaitGroup
	errs := make([]error, len(addresses))
	for i, a := range addresses {
		pulls.Go(func() { errs[i] = c.pull(a) })
	}
	pulls.Wait()
	c.running.Wait()
	stopBeating()
	beat.Wait()
	return errors.Join(errs...)
}

// consumer is one call of Consume.
type consumer struct {
	*Bus
	ctx     context.Context
	handle  Handler
	slots   chan struct{} // one for each call of handle
	running sync.WaitGroup

	mu   sync.Mutex
	held map[*message]struct{} // delivered to us and neither acknowledged nor given back
	// lanes holds the commands that wait behind one to the same target. A target has an entry while its lane runs.
	lanes map[uuid.UUID][]*message
}

// message is a command in our hands.
type message struct {
	jetstream.Msg
	cmd        events.Command
	address    events.Address
	deliveries int
	done       func() // gives its place in the window back
}

// pull takes messages in for as long as ctx lasts, and mends what is missing at the server.
func (c *consumer) pull(a events.Address) error {
	window := make(chan struct{}, c.Window)
	for failures := 0; ; failures++ {
		got, err := c.stream(a, window)
		if c.ctx.Err() != nil {
			return nil
		}
		if c.nc.IsClosed() {
			return fmt.Errorf("consume %s: %w", a.Consumer(), nats.ErrConnectionClosed)
		}
		if got {
			failures = 0
		}
		c.Log.Warn("cannot get commands; trying again", "consumer", a.Consumer(), "err", err)
		if failures > 0 && !pause(c.ctx, c.delay(failures)) {
			return nil
		}
		if err := c.remakeStreams(c.ctx); err != nil && c.ctx.Err() == nil {
			c.Log.Warn("cannot make the streams", "err", err)
		}
	}
}

// stream takes messages in until ctx ends or something fails. It asks for one at a time, and only when the window has
// room for it: a message that waited in the client's buffer would give no sign of life and be delivered twice.
func (c *consumer) stream(a events.Address, window chan struct{}) (got bool, err error) {
	cons, err := c.consumer(c.ctx, a)
	if err != nil {
		return false, err
	}
	messages, err := cons.Messages(jetstream.PullMaxMessages(1), jetstream.PullExpiry(pullTime), jetstream.PullHeartbeat(heartbeat))
	if err != nil {
		return false, fmt.Errorf("consumer %s: %w", a.Consumer(), err)
	}
	defer c.giveBack(messages)
	for {
		select {
		case window <- struct{}{}:
		case <-c.ctx.Done():
			return got, nil
		}
		m, err := messages.Next(jetstream.NextContext(c.ctx))
		if err != nil {
			<-window
			return got, err
		}
		got = true
		c.take(m, a, func() { <-window })
	}
}

// giveBack withdraws the request that stands at the server and gives back what it still brought.
func (c *consumer) giveBack(messages jetstream.MessagesContext) {
	messages.Drain()
	for {
		m, err := messages.Next(jetstream.NextMaxWait(callTime))
		if err != nil {
			if !errors.Is(err, jetstream.ErrMsgIteratorClosed) {
				c.Log.Warn("cannot end a request for commands", "err", err)
			}
			return
		}
		if err := m.Nak(); err != nil {
			c.Log.Warn("a command could not be given back; it will come again", "subject", m.Subject(), "err", err)
		}
	}
}

// take puts a message into the lane of its target.
func (c *consumer) take(m jetstream.Msg, a events.Address, release func()) {
	msg := &message{Msg: m, address: a, done: release}
	c.mu.Lock()
	c.held[msg] = struct{}{}
	c.mu.Unlock()

	target, err := c.open(msg)
	if err != nil {
		c.running.Go(func() { c.bury(msg, reasonUndecodable, err.Error()) })
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if queue, runs := c.lanes[target]; runs {
		c.lanes[target] = append(queue, msg)
		return
	}
	c.lanes[target] = nil
	c.running.Go(func() { c.lane(target, msg) })
}

// lane handles the commands to one target, one after the other, until none waits.
func (c *consumer) lane(target uuid.UUID, msg *message) {
	for {
		c.process(msg)
		c.mu.Lock()
		queue := c.lanes[target]
		if len(queue) == 0 {
			delete(c.lanes, target)
			c.mu.Unlock()
			return
		}
		msg, c.lanes[target] = queue[0], queue[1:]
		c.mu.Unlock()
	}
}

// process brings one message to an end: acknowledged, given back or buried.
func (c *consumer) process(msg *message) {
	if msg.deliveries >= c.MaxDeliveries {
		c.bury(msg, reasonDeliveries, fmt.Sprintf("delivered %d times and never handled", msg.deliveries-1))
		return
	}
	log := c.Log.With("command", msg.cmd.ID, "type", msg.cmd.Type, "target", msg.cmd.Target)
	for try := 1; ; try++ {
		if !c.acquire() { // draining: another process, or the next start, takes it at once
			c.settle(msg, msg.Nak)
			return
		}
		d, err := c.try(msg.cmd)
		<-c.slots
		switch {
		case err == nil:
			if err := c.reply(msg.Headers().Get(events.ReplyHeader), d); err != nil {
				log.WarnContext(c.trace(msg.cmd), "the decision could not be sent", "err", err)
			}
			c.settle(msg, msg.Ack)
			return
		case errors.Is(err, eventstore.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded):
			log.WarnContext(c.trace(msg.cmd), "a command cannot be handled now", "err", err, "try", try)
			pause(c.ctx, c.delay(try))
		default:
			log.ErrorContext(c.trace(msg.cmd), "a command failed", "err", err, "delivery", msg.deliveries)
			c.settle(msg, func() error { return msg.NakWithDelay(c.delay(msg.deliveries)) })
			return
		}
	}
}

// trace is where what is logged of a command belongs.
func (c *consumer) trace(cmd events.Command) context.Context {
	return trace.Operation(trace.Continue(c.ctx, cmd.Meta.Traceparent), cmd.Meta.Operation)
}

// acquire takes a slot, or returns false once ctx has ended.
func (c *consumer) acquire() bool {
	if c.ctx.Err() != nil {
		return false
	}
	select {
	case c.slots <- struct{}{}:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// try calls the handler once.
func (c *consumer) try(cmd events.Command) (d Decision, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.TryTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return c.handle(ctx, cmd)
}

// settle ends our hold of a message. A message whose end does not reach the server is delivered again.
func (c *consumer) settle(msg *message, end func() error) {
	c.mu.Lock()
	delete(c.held, msg)
	c.mu.Unlock()
	if err := end(); err != nil {
		c.Log.Warn("a command could not be settled; it will come again", "subject", msg.Subject(), "err", err)
	}
	msg.done()
}

// beat tells the server of every message in our hands that it is being worked on.
func (c *consumer) beat(ctx context.Context) {
	tick := time.NewTicker(c.AckWait / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.mu.Lock()
		for msg := range c.held {
			if err := msg.InProgress(); err != nil {
				c.Log.Warn("no sign of life could be given", "subject", msg.Subject(), "err", err)
			}
		}
		c.mu.Unlock()
	}
}

// pause waits, or returns false when ctx ends before.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
