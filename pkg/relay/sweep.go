package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"horcrux/pkg/bus"
	"horcrux/pkg/eventstore"
)

const (
	// minWait and maxWait are the pauses before a command is published again: they double from one to the other.
	minWait = 5 * time.Second
	maxWait = time.Minute
	// sweepLimit is how many commands one look takes, firstLimit how many the first look of a leader takes, which asks
	// for commands before they are due. What is beyond it comes when it is due.
	sweepLimit = 256
	firstLimit = 10_000
)

// sweepCommands publishes undecided commands: at once all that there are, since whoever led before, or the stream, may
// have lost them; then each when it is due.
func (r *Relay) sweepCommands(ctx context.Context) error {
	tick := time.NewTicker(r.Sweep)
	defer tick.Stop()
	ahead, limit := maxWait, firstLimit // no command is due later than maxWait from now
	for {
		n, err := r.sweep(ctx, r.Clock().Add(ahead), limit)
		if ctx.Err() != nil {
			return nil
		}
		r.set(func(s *Status) { s.Sweep = err })
		switch {
		case err != nil:
			r.Log.Error("commands are not published again; trying again", "err", err)
		case n == limit && ahead == 0:
			continue
		default:
			ahead, limit = 0, sweepLimit
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweep takes up to limit commands that are due at a time and returns how many there were. It fails when the store or
// the bus is away; a command that is itself at fault is logged and put off.
func (r *Relay) sweep(ctx context.Context, at time.Time, limit int) (int, error) {
	dueCtx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	due, err := r.Store.Due(dueCtx, at, limit)
	if err != nil {
		return 0, err
	}
	for _, u := range due {
		if err := r.sweepOne(ctx, u); err != nil {
			return 0, err
		}
	}
	return len(due), nil
}

func (r *Relay) sweepOne(ctx context.Context, u eventstore.Undecided) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	log := r.Log.With("command", u.Command.ID, "type", u.Command.Type, "attempt", u.Attempt+1)
	now := r.Clock()
	next := now.Add(min(minWait<<min(u.Attempt+1, 10), maxWait))
	if deadline := u.Command.Deadline; !now.Before(deadline) {
		err := r.Expire(ctx, u.Command)
		if err == nil {
			log.Warn("a command was decided by nobody before its deadline")
			return nil
		}
		log.Error("a command past its deadline could not be rejected", "err", err)
	} else {
		if deadline.Before(next) {
			next = deadline
		}
		switch err := r.Bus.Publish(ctx, u.Command, u.Attempt+1); {
		case errors.Is(err, bus.ErrUnpublishable):
			log.Error("a command that cannot be published", "err", err)
		case err != nil:
			return err
		default:
			log.Info("a command was published again")
		}
	}
	if err := r.Store.Published(ctx, u.Command.ID, next); err != nil {
		return fmt.Errorf("count the publication of command %s: %w", u.Command.ID, err)
	}
	return nil
}

// forgetLimit is how many outcomes one transaction drops: it holds back readers for as long as it takes.
const forgetLimit = 1000

// forgetCommands drops the outcomes that are older than eventstore.OutcomeLifetime, now and then.
func (r *Relay) forgetCommands(ctx context.Context) {
	for {
		n, err := r.forget(ctx)
		wait := r.Forget
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			r.Log.Warn("old outcomes of commands stay for now", "err", err)
		case n == forgetLimit:
			wait = r.Sweep // there are more
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func (r *Relay) forget(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	return r.Store.Forget(ctx, r.Clock().Add(-eventstore.OutcomeLifetime), forgetLimit)
}
