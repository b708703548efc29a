package bus

import (
	"context"

	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
)

// Nudge tells every process, this one included, that something was appended. It does not wait and may be lost: whoever
// listens polls as well.
func (b *Bus) Nudge() error { return b.nc.Publish(events.NudgeSubject, nil) }

// Nudges returns a channel that gets a value after one or more nudges. Call stop when done with it.
func (b *Bus) Nudges() (nudges <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	b.nudgesMu.Lock()
	defer b.nudgesMu.Unlock()
	b.nudges[c] = struct{}{}
	return c, func() {
		b.nudgesMu.Lock()
		defer b.nudgesMu.Unlock()
		delete(b.nudges, c)
	}
}

// nudged merges: a listener that has not taken the last nudge needs no other.
func (b *Bus) nudged(*nats.Msg) {
	b.nudgesMu.Lock()
	defer b.nudgesMu.Unlock()
	for c := range b.nudges {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// ForwardNudges nudges every process after each append of this process's store (eventstore.Store.Nudged), until ctx
// ends.
func (b *Bus) ForwardNudges(ctx context.Context, appended <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-appended:
			if err := b.Nudge(); err != nil {
				b.Log.Warn("nudge", "err", err)
			}
		}
	}
}
