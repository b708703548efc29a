package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/crashpoint"
	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

var (
	// ErrNoDecision: nobody said in time what became of a command. It is under way all the same.
	ErrNoDecision = errors.New("no decision in time")
	// ErrUnpublishable: a command that NATS refuses, now and ever: too large, or its words make no subject.
	ErrUnpublishable = errors.New("cannot be published")
)

// Decision is what became of a command.
type Decision struct {
	Command  uuid.UUID       `json:"command"`
	Position events.Position `json:"position"` // of the last event that it appended, zero if none
	// Rejection is the domain's "no", nil for an accepted command.
	Rejection *problem.Problem `json:"rejection,omitempty"`
}

// Publish puts a command into HORCRUX_CMD and returns when the server has it. The same attempt of the same command is
// swallowed within two minutes, even when the first was consumed: whoever publishes again counts attempts. A stream
// that is gone is made anew.
func (b *Bus) Publish(ctx context.Context, cmd events.Command, attempt int) error {
	return b.publish(ctx, cmd, fmt.Sprintf("%s/%d", cmd.ID, attempt), "")
}

// Ask publishes attempt 0 of a command and waits for its decision until ctx ends: then it is ErrNoDecision. Any other
// error says that the publication failed. In both cases the command, being recorded, will be decided later.
func (b *Bus) Ask(ctx context.Context, cmd events.Command) (Decision, error) {
	decided := b.waiting.add(cmd.ID)
	defer b.waiting.remove(cmd.ID, decided)
	if err := b.publish(ctx, cmd, cmd.ID.String()+"/0", b.inbox+cmd.ID.String()); err != nil {
		return Decision{}, err
	}
	select {
	case d := <-decided:
		return d, nil
	case <-ctx.Done():
		return Decision{}, ErrNoDecision
	}
}

func (b *Bus) publish(ctx context.Context, cmd events.Command, msgID, reply string) error {
	data, err := json.Marshal(cmd)
	if err != nil {
		return fmt.Errorf("publish command %s: %w: %w", cmd.ID, ErrUnpublishable, err)
	}
	m := nats.NewMsg(cmd.Subject())
	m.Data = data
	if reply != "" {
		m.Header.Set(events.ReplyHeader, reply)
	}
	if err := b.put(ctx, m, msgID, events.CommandStream); err != nil {
		return fmt.Errorf("publish command %s: %w", cmd.ID, err)
	}
	crashpoint.Reach(crashpoint.Published, cmd.Type)
	return nil
}

// ackTime is how long one attempt to publish waits for its ack. A message that meets a stream as it is deleted gets none.
const ackTime = time.Second

// put publishes a message to a stream and waits for the ack. It may try several times: the message id keeps one of them.
func (b *Bus) put(ctx context.Context, m *nats.Msg, msgID, stream string) error {
	if !publishable(m.Subject) || int64(m.Size()) > b.nc.MaxPayload() {
		return ErrUnpublishable
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for {
		err := b.putOnce(ctx, m, msgID, stream)
		if ctx.Err() != nil || !errors.Is(err, jetstream.ErrNoStreamResponse) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := b.remakeStreams(ctx); err != nil { // the stream is gone, or its leader is just moving
			return err
		}
	}
}

func (b *Bus) putOnce(ctx context.Context, m *nats.Msg, msgID, stream string) error {
	ctx, cancel := context.WithTimeout(ctx, ackTime)
	defer cancel()
	_, err := b.js.PublishMsg(ctx, m, jetstream.WithMsgID(msgID), jetstream.WithExpectStream(stream), jetstream.WithRetryAttempts(0))
	return err
}

// publishable says whether a subject names one place and cannot break the protocol.
func publishable(subject string) bool {
	return subject != "" && !strings.ContainsAny(subject, " \t\r\n*>") &&
		!slices.Contains(strings.Split(subject, "."), "")
}

// reply tells the sender of a command its decision, if it asked. Only inboxes are answered: a command must not make a
// service speak on the subjects of others.
func (b *Bus) reply(to string, d Decision) error {
	if to == "" {
		return nil
	}
	if !strings.HasPrefix(to, nats.InboxPrefix) || !publishable(to) {
		return fmt.Errorf("reply to %q: no inbox", to)
	}
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("reply: %w", err)
	}
	return b.nc.Publish(to, data)
}

// decided hands a decision to whoever asked for it.
func (b *Bus) decided(m *nats.Msg) {
	var d Decision
	if err := json.Unmarshal(m.Data, &d); err != nil || m.Subject != b.inbox+d.Command.String() {
		b.Log.Error("a decision that cannot be read", "subject", m.Subject, "err", err)
		return
	}
	b.waiting.tell(d)
}

// waiters are the calls of Ask under way, by command.
type waiters struct {
	mu sync.Mutex
	m  map[uuid.UUID][]chan Decision
}

func (w *waiters) add(command uuid.UUID) chan Decision {
	c := make(chan Decision, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.m[command] = append(w.m[command], c)
	return c
}

func (w *waiters) remove(command uuid.UUID, c chan Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if rest := slices.DeleteFunc(w.m[command], func(o chan Decision) bool { return o == c }); len(rest) > 0 {
		w.m[command] = rest
	} else {
		delete(w.m, command)
	}
}

// tell never blocks: a second decision on a command says what the first said.
func (w *waiters) tell(d Decision) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.m[d.Command] {
		select {
		case c <- d:
		default:
		}
	}
}
