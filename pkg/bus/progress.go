package bus

import (
	"slices"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
)

// Ended tells every process, this one included, that an operation has ended. It does not wait and may be lost: whoever
// listens reads the log as well.
func (b *Bus) Ended(operation uuid.UUID) error {
	return b.nc.Publish(events.ProgressSubject(operation), nil)
}

// Ending returns a channel that gets a value when somebody tells that an operation has ended. Call stop when done with
// it.
func (b *Bus) Ending(operation uuid.UUID) (ended <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	b.endingMu.Lock()
	defer b.endingMu.Unlock()
	b.ending[operation] = append(b.ending[operation], c)
	return c, func() {
		b.endingMu.Lock()
		defer b.endingMu.Unlock()
		rest := slices.DeleteFunc(b.ending[operation], func(o chan struct{}) bool { return o == c })
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
	b.endingMu.Lock()
	defer b.endingMu.Unlock()
	for _, c := range b.ending[operation] {
		select {
		case c <- struct{}{}:
		default: // it was told before
		}
	}
}
