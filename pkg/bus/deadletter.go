package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
)

// Why a message is a dead letter: the last word of its subject.
const (
	reasonDeliveries  = "deliveries"  // it was delivered too often without being handled
	reasonUndecodable = "undecodable" // it is no command
)

// Headers of dead letters.
const (
	reasonHeader  = "Horcrux-Reason"
	detailHeader  = "Horcrux-Detail"
	subjectHeader = "Horcrux-Subject" // where the message was published
)

var (
	// ErrNoDeadLetter: there is no dead letter of that number.
	ErrNoDeadLetter = errors.New("no such dead letter")
	// ErrUndecodable: a message is no command.
	ErrUndecodable = errors.New("message is no command")
)

// DeadLetter is a message that no service could handle.
type DeadLetter struct {
	Seq     uint64    `json:"seq"` // names it to Retry and Drop
	At      time.Time `json:"at"`  // when it was given up
	Subject string    `json:"subject"`
	Reason  string    `json:"reason"`
	Detail  string    `json:"detail"`
	// Command is nil when the message is none.
	Command *events.Command `json:"command,omitempty"`
	Body    []byte          `json:"body"` // as it was published
}

// open decodes a message into its command and returns the target.
func (c *consumer) open(msg *message) (uuid.UUID, error) {
	meta, err := msg.Metadata()
	if err != nil {
		return uuid.Nil, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	msg.deliveries = int(meta.NumDelivered)
	msg.cmd, err = decode(msg.Subject(), msg.Data())
	return msg.cmd.Target, err
}

// decode reads a command, which must be the one that its subject speaks of.
func decode(subject string, data []byte) (events.Command, error) {
	var cmd events.Command
	if err := json.Unmarshal(data, &cmd); err != nil {
		return cmd, fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	if cmd.ID == uuid.Nil || cmd.Subject() != subject {
		return cmd, fmt.Errorf("%w: it does not belong on its subject", ErrUndecodable)
	}
	return cmd, nil
}

// bury gives a message up: its command is parked, it is copied to the DLQ and then taken off the queue. Each of the
// steps may run again after a crash.
func (c *consumer) bury(msg *message, reason, detail string) {
	log := c.Log.With("subject", msg.Subject(), "reason", reason)
	if err := c.layAside(msg, reason, detail); err != nil {
		log.ErrorContext(c.trace(msg.cmd), "a dead letter could not be laid aside; trying again later", "err", err)
		c.settle(msg, func() error { return msg.NakWithDelay(c.delay(msg.deliveries)) })
		return
	}
	log.ErrorContext(c.trace(msg.cmd), "a command is given up; see the dead letters", "command", msg.cmd.ID, "detail", detail)
	c.settle(msg, func() error { return msg.TermWithReason(reason) })
}

func (c *consumer) layAside(msg *message, reason, detail string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), c.TryTime)
	defer cancel()
	if reason != reasonUndecodable {
		if err := c.OnDeadLetter(ctx, msg.cmd); err != nil {
			return fmt.Errorf("park the command: %w", err)
		}
	}
	meta, err := msg.Metadata()
	if err != nil {
		return err
	}
	m := nats.NewMsg(events.DeadLetterSubject(msg.address.Domain, reason))
	m.Data = msg.Data()
	m.Header.Set(subjectHeader, msg.Subject())
	m.Header.Set(reasonHeader, reason)
	m.Header.Set(detailHeader, strings.Map(printable, detail))
	// The sequence names the message: a second copy of it is swallowed, one of a retried command is not.
	id := meta.Timestamp.UTC().Format(time.RFC3339Nano) + "/" + strconv.FormatUint(meta.Sequence.Stream, 10)
	return c.put(ctx, m, id, events.DeadLetterStream)
}

// printable keeps line breaks out of a header.
func printable(r rune) rune {
	if r < ' ' {
		return ' '
	}
	return r
}

// DeadLetters returns what could not be handled, the oldest first.
func (b *Bus) DeadLetters(ctx context.Context) ([]DeadLetter, error) {
	s, err := b.js.Stream(ctx, events.DeadLetterStream)
	if err != nil {
		return nil, fmt.Errorf("dead letters: %w", err)
	}
	var letters []DeadLetter
	for seq := uint64(1); ; {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(events.AllDeadLetters))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return letters, nil
		}
		if err != nil {
			return nil, fmt.Errorf("dead letters: %w", err)
		}
		letters = append(letters, deadLetter(m))
		seq = m.Sequence + 1
	}
}

// CountDeadLetters returns how many there are.
func (b *Bus) CountDeadLetters(ctx context.Context) (uint64, error) {
	s, err := b.js.Stream(ctx, events.DeadLetterStream)
	if err != nil {
		return 0, fmt.Errorf("dead letters: %w", err)
	}
	return s.CachedInfo().State.Msgs, nil
}

// DeadLetter returns one, or ErrNoDeadLetter.
func (b *Bus) DeadLetter(ctx context.Context, seq uint64) (DeadLetter, error) {
	s, err := b.js.Stream(ctx, events.DeadLetterStream)
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", seq, err)
	}
	m, err := s.GetMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		err = ErrNoDeadLetter
	}
	if err != nil {
		return DeadLetter{}, fmt.Errorf("dead letter %d: %w", seq, err)
	}
	return deadLetter(m), nil
}

func deadLetter(m *jetstream.RawStreamMsg) DeadLetter {
	d := DeadLetter{
		Seq: m.Sequence, At: m.Time, Subject: m.Header.Get(subjectHeader), Reason: m.Header.Get(reasonHeader),
		Detail: m.Header.Get(detailHeader), Body: m.Data,
	}
	if cmd, err := decode(d.Subject, d.Body); err == nil {
		d.Command = &cmd
	}
	return d
}

// Retry publishes the command of a dead letter again and drops the letter. One that is no command is ErrUndecodable.
func (b *Bus) Retry(ctx context.Context, seq uint64) error {
	d, err := b.DeadLetter(ctx, seq)
	if err != nil {
		return err
	}
	if d.Command == nil {
		return fmt.Errorf("dead letter %d: %w", seq, ErrUndecodable)
	}
	if err := b.publish(ctx, *d.Command, fmt.Sprintf("%s/dead/%d", d.Command.ID, seq), ""); err != nil {
		return err
	}
	return b.Drop(ctx, seq)
}

// Drop forgets a dead letter.
func (b *Bus) Drop(ctx context.Context, seq uint64) error {
	s, err := b.js.Stream(ctx, events.DeadLetterStream)
	if err != nil {
		return fmt.Errorf("dead letter %d: %w", seq, err)
	}
	err = s.DeleteMsg(ctx, seq)
	if errors.Is(err, jetstream.ErrMsgNotFound) || errors.Is(err, jetstream.ErrMsgDeleteUnsuccessful) {
		err = ErrNoDeadLetter
	}
	if err != nil {
		return fmt.Errorf("dead letter %d: %w", seq, err)
	}
	return nil
}
