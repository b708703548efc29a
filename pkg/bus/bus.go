// Package bus carries commands, their decisions, events, nudges, calls and pipes over NATS. It is a transport: what it
// loses of commands and events is published again from the event store. Their delivery is at least once; who consumes
// dedupes by id. A call may be lost, and a pipe break; both say so.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
)

// Options of a Bus. The zero value serves.
type Options struct {
	Log *slog.Logger // nil: slog.Default
	// MaxDeliveries is the delivery at whose arrival a command is given up instead of handled; 0 means 5.
	MaxDeliveries int
	// OnDeadLetter is called with a command that is given up, before it goes to HORCRUX_DLQ. It must be idempotent. If
	// it fails, all of it is tried again later. Nil does nothing.
	OnDeadLetter func(context.Context, events.Command) error
	// AckWait is how long the server waits for a sign of life before it delivers a command again; 0 means 30 s. Signs
	// are given three times as often for as long as the process lives.
	AckWait time.Duration
	// Window is how many commands of one address are held at once, waiting ones included; 0 means 64.
	Window int
	// Concurrency is how many commands are handled at once; 0 means 16.
	Concurrency int
	// TryTime bounds one call of the handler, and with it how long Consume drains; 0 means 10 s.
	TryTime time.Duration
	// Backoff is the pause after a first failure, doubled up to 64 times; 0 means 250 ms.
	Backoff time.Duration
	// KeepAlive is how often each end of a pipe gives a sign of life; 0 means 5 s.
	KeepAlive time.Duration
}

func (o *Options) setDefaults() {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.OnDeadLetter == nil {
		o.OnDeadLetter = func(context.Context, events.Command) error { return nil }
	}
	setDefault(&o.MaxDeliveries, 5)
	setDefault(&o.AckWait, 30*time.Second)
	setDefault(&o.Window, 64)
	setDefault(&o.Concurrency, 16)
	setDefault(&o.TryTime, 10*time.Second)
	setDefault(&o.Backoff, 250*time.Millisecond)
	setDefault(&o.KeepAlive, 5*time.Second)
}

func setDefault[T int | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// delay is the pause after the nth failure, from 1.
func (o *Options) delay(n int) time.Duration { return o.Backoff << min(max(n-1, 0), 6) }

// callTime bounds a call to JetStream whose context has no deadline of its own.
const callTime = 5 * time.Second

// Bus is one connection's use of the streams and subjects of Horcrux. It is safe for concurrent use.
type Bus struct {
	Options
	nc   *nats.Conn
	js   jetstream.JetStream
	subs []*nats.Subscription

	inbox   string // prefix of the subjects on which decisions arrive
	waiting waiters

	nudgesMu sync.Mutex
	nudges   map[chan struct{}]struct{}

	endingMu sync.Mutex
	ending   map[uuid.UUID][]chan []events.Event // by operation
	lastEnd  events.Position
}

// New returns a Bus on a connection that the caller opened and closes, after the Bus.
func New(nc *nats.Conn, o Options) (*Bus, error) {
	o.setDefaults()
	js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(callTime), jetstream.WithPublishAsyncTimeout(callTime))
	if err != nil {
		return nil, fmt.Errorf("bus: %w", err)
	}
	b := &Bus{
		Options: o, nc: nc, js: js, inbox: nc.NewInbox() + ".",
		waiting: waiters{m: map[uuid.UUID][]chan Decision{}}, nudges: map[chan struct{}]struct{}{}, ending: map[uuid.UUID][]chan []events.Event{},
	}
	for subject, handle := range map[string]nats.MsgHandler{
		b.inbox + "*":       b.decided,
		events.NudgeSubject: b.nudged,
		events.AllProgress:  b.ended,
	} {
		sub, err := nc.Subscribe(subject, handle)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("bus: subscribe %s: %w", subject, err), b.Close())
		}
		b.subs = append(b.subs, sub)
	}
	return b, nil
}

// Close ends the subscriptions. Ask and Consume must have returned.
func (b *Bus) Close() error {
	var errs []error
	for _, s := range b.subs {
		if err := s.Unsubscribe(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			errs = append(errs, fmt.Errorf("bus: unsubscribe %s: %w", s.Subject, err))
		}
	}
	b.js.CleanupPublisher()
	return errors.Join(errs...)
}

// Ready returns nil if the server answers and the command stream is there.
func (b *Bus) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if _, err := b.js.Stream(ctx, events.CommandStream); err != nil {
		return fmt.Errorf("bus: %w", err)
	}
	return nil
}

// ConnOptions are the options of every connection: it is kept up for ever, and its troubles are logged.
func ConnOptions(name string, log *slog.Logger) []nats.Option {
	log = log.With("component", "nats", "connection", name)
	return []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				log.Warn("connection lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { log.Info("connected again") }),
		nats.ErrorHandler(func(_ *nats.Conn, s *nats.Subscription, err error) {
			subject := ""
			if s != nil {
				subject = s.Subject
			}
			log.Error("connection error", "subject", subject, "err", err)
		}),
	}
}
