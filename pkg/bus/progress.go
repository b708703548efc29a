package bus

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
)

// tellUpTo bounds the message that an operation has ended, in bytes: what is longer is told without its events.
const tellUpTo = 64 << 10

// Ended tells every process, this one included, that an operation has ended, with all its events. It does not wait and
// may be lost: whoever listens reads the log as well.
func (b *Bus) Ended(operation uuid.UUID, recorded []events.Event) error {
	data, err := json.Marshal(recorded)
	if err != nil {
		return fmt.Errorf("tell that %s has ended: %w", operation, err)
	}
	m := nats.NewMsg(events.ProgressSubject(operation))
	if n := len(recorded); n > 0 {
		m.Header.Set(events.PositionHeader, recorded[n-1].Position.String())
	}
	if len(data) <= tellUpTo {
		m.Data = data
	}
	return b.nc.PublishMsg(m)
}

// LastEnd is the position of the last end of an operation that anybody told, zero if none was told yet.
func (b *Bus) LastEnd() events.Position {
	b.endingMu.Lock()
	defer b.endingMu.Unlock()
	return b.lastEnd
}

// Ending returns a channel that gets the events of an operation when somebody tells that it has ended; none if they
// are too long to be told. Call stop when done with it.
func (b *Bus) Ending(operation uuid.UUID) (ended <-chan []events.Event, stop func()) {
	c := make(chan []events.Event, 1)
	b.endingMu.Lock()
	defer b.endingMu.Unlock()
	b.ending[operation] = append(b.ending[operation], c)
	return c, func() {
		b.endingMu.Lock()
		defer b.endingMu.Unlock()
		rest := slices.DeleteFunc(b.ending[operation], func(o chan []events.Event) bool { return o == c })
		if b.ending[operation] = rest; len(rest) == 0 {
			delete(b.ending, operation)
		}
	}
}

// ended hands on what Ended of any process told.
func (b *Bus) ended(m *nats.Msg) {
	operation, err := events.ProgressOf(m.Subject)
	if err != nil {
		b.Log.Error("progress of no operation", "subject", m.Subject, "err", err)
		return
	}
	pos, err := events.ParsePosition(m.Header.Get(events.PositionHeader))
	if err != nil {
		b.Log.Error("the end of an operation at no position", "operation", operation, "err", err)
		return
	}
	b.endingMu.Lock()
	defer b.endingMu.Unlock()
	if pos.Compare(b.lastEnd) > 0 {
		b.lastEnd = pos
	}
	if len(b.ending[operation]) == 0 {
		return
	}
	var recorded []events.Event
	if len(m.Data) > 0 {
		if err := json.Unmarshal(m.Data, &recorded); err != nil {
			b.Log.Error("the end of an operation that cannot be read", "operation", operation, "err", err)
		}
	}
	for _, c := range b.ending[operation] {
		select {
		case c <- recorded:
		default: // it was told before
		}
	}
}
