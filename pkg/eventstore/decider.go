package eventstore

import "horcrux/pkg/events"

// Decider is the pure core of an aggregate: no clock, randomness, context or I/O. Time, new ids and looked-up facts
// travel in the command.
type Decider[S any] struct {
	Initial func() S
	// Decide returns what happens, or a *problem.Problem as the domain's "no".
	Decide func(S, any) ([]any, error)
	// Evolve is total: it ignores events it does not know.
	Evolve func(S, any) S
}

// Fold replays a history.
func (d Decider[S]) Fold(codec *events.Codec, h History) (S, error) {
	s := d.Initial()
	for _, e := range h.Events {
		v, err := codec.Decode(e)
		if err != nil {
			return s, err
		}
		s = d.Evolve(s, v)
	}
	return s, nil
}
