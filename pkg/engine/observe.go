package engine

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// Observe lets the decider take in what was seen of an object without anybody having asked for it. The decider
// answers with no events when that is no news. It returns the object's state after it.
func Observe[S any](ctx context.Context, e *Engine, k *Kind[S], id uuid.UUID, cause string, c any) (S, error) {
	return ObserveAt(ctx, e, k, id, 0, cause, c)
}

// Version is that of an object now, for ObserveAt. It costs nothing where the engine has just worked on the object.
func Version[S any](ctx context.Context, e *Engine, k *Kind[S], id uuid.UUID) (int64, error) {
	h, err := e.histories(ctx, []events.Stream{events.NewStream(k.Codec.Kind, id)})
	if err != nil {
		return 0, err
	}
	return h[0].Head.Version, nil
}

// ErrMoved: what was seen would be news, and the object has another version than it had when it was looked at.
var ErrMoved = errors.New("the object moved since it was looked at")

// Never is no object's version: with it, all news is ErrMoved.
const Never = -1

// ObserveAt is Observe of something that was seen when the object had a version; ErrMoved when it is news to an object that
// has another by now. 0 stands for any.
func ObserveAt[S any](ctx context.Context, e *Engine, k *Kind[S], id uuid.UUID, version int64, cause string, c any) (S, error) {
	stream := events.NewStream(k.Codec.Kind, id)
	known, err := e.histories(ctx, []events.Stream{stream})
	if err != nil {
		var none S
		return none, err
	}
	var u *unit[S]
	now := e.Clock()
	r, err := eventstore.RunFrom(ctx, e.Store, uuid.Nil, known, func(h []eventstore.History) (eventstore.Append, error) {
		var err error
		if u, err = newUnit(e, k, now, events.Meta{Actor: "service:" + e.Domain, Auth: "internal", Reason: cause}, h); err != nil {
			return eventstore.Append{}, err
		}
		_, err = u.decide(c)
		if version != 0 && version != h[0].Head.Version && (err != nil || len(u.append.Events) > 0) {
			return eventstore.Append{}, ErrMoved
		}
		if err != nil {
			return eventstore.Append{}, err
		}
		return u.result(e.open())
	})
	switch {
	case errors.Is(err, errNothing):
		if k.Intent(u.state) != nil { // it is looked at again, and then as it is recorded
			e.recent.forget(stream)
		}
		return u.state, nil
	case err != nil:
		e.recent.forget(stream)
		var none S
		return none, err
	}
	u.commit(ctx, e, r)
	return u.state, nil
}
