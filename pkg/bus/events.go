package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events"
)

// MaxEvents is how many events one call of PublishEvents takes: as many may wait for their ack at once. (Beyond it the
// client stalls on a server that syncs each message.)
const MaxEvents = 256

// ErrTailMoved: somebody else has published to HORCRUX_EVT, or it was made anew or purged under way.
var ErrTailMoved = errors.New("event stream has moved")

// Tail is the end of HORCRUX_EVT.
type Tail struct {
	Seq      uint64          // of the last message
	Position events.Position // of the last event; zero for a stream that holds none
}

// Tail makes the event stream if it is missing and returns its end. It is read from the last message, so that the
// stream alone says how far it reaches, whatever happened to it.
func (b *Bus) Tail(ctx context.Context) (Tail, error) {
	s, err := b.js.Stream(ctx, events.EventStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		if err = b.remakeStreams(ctx); err == nil {
			s, err = b.js.Stream(ctx, events.EventStream)
		}
	}
	if err != nil {
		return Tail{}, fmt.Errorf("event stream: %w", err)
	}
	t := Tail{Seq: s.CachedInfo().State.LastSeq}
	if s.CachedInfo().State.Msgs == 0 {
		return t, nil // new, or purged
	}
	m, err := s.GetMsg(ctx, t.Seq)
	if err != nil {
		return Tail{}, fmt.Errorf("last message of the event stream: %w", err)
	}
	if t.Position, err = events.ParsePosition(m.Header.Get(events.PositionHeader)); err != nil || t.Position.IsZero() {
		return Tail{}, fmt.Errorf("last message of the event stream: %w", events.ErrPosition)
	}
	return t, nil
}

// PublishEvents publishes up to MaxEvents events in order behind a tail and returns the new one. Each names the
// sequence that it expects before it, so that it gets in only behind the events that precede it in the log, however
// many publish: none is doubled, left out or out of order. When somebody else has published since, it is ErrTailMoved.
// After any failure the tail has to be read anew. domain names the service of a kind of stream.
func (b *Bus) PublishEvents(ctx context.Context, after Tail, evs []events.Event, domain func(kind string) string) (Tail, error) {
	acks := make([]jetstream.PubAckFuture, 0, min(len(evs), MaxEvents))
	var failed error
	for i, e := range evs[:cap(acks)] {
		ack, err := b.publishEvent(after.Seq+uint64(i), e, domain(e.Stream.Kind()))
		if err != nil {
			failed = fmt.Errorf("event %s: %w", e.ID, err)
			break
		}
		acks = append(acks, ack)
	}
	tail := after
	for i, ack := range acks {
		select {
		case a := <-ack.Ok():
			if a.Duplicate {
				return tail, fmt.Errorf("event %s was published already: %w", evs[i].ID, ErrTailMoved)
			}
			tail = Tail{Seq: a.Sequence, Position: evs[i].Position}
		case err := <-ack.Err():
			return tail, fmt.Errorf("event %s: %w", evs[i].ID, moved(err))
		case <-ctx.Done():
			return tail, ctx.Err()
		}
	}
	return tail, failed
}

func (b *Bus) publishEvent(expect uint64, e events.Event, domain string) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnpublishable, err)
	}
	m := nats.NewMsg(e.Subject(domain))
	m.Data = data
	m.Header.Set(events.PositionHeader, e.Position.String())
	if !publishable(m.Subject) || int64(m.Size()) > b.nc.MaxPayload() {
		return nil, ErrUnpublishable
	}
	return b.js.PublishMsgAsync(m, jetstream.WithMsgID(e.ID.String()), jetstream.WithExpectStream(events.EventStream),
		jetstream.WithExpectLastSequence(expect), jetstream.WithRetryAttempts(0))
}

// moved tells a tail that moved from other failures.
func moved(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence {
		return ErrTailMoved
	}
	return err
}
