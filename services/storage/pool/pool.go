// Package pool decides about storage pools. It is pure.
package pool

import (
	"fmt"
	"maps"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/pool"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Pool is the private state of a pool.
type Pool struct {
	Exists bool
	wire.Defined
}

// Define makes a pool known, or says where a known one is now.
type Define struct{ wire.Defined }

// Decider of pools.
var Decider = eventstore.Decider[Pool]{
	Initial: func() Pool { return Pool{} },
	Decide:  Decide,
	Evolve:  Evolve,
}

// Decide says what happens.
func Decide(p Pool, c any) ([]any, error) {
	d, ok := c.(Define)
	if !ok {
		return nil, fmt.Errorf("no such command: %T", c)
	}
	if d.Options == nil {
		d.Options = map[string]string{}
	}
	switch {
	case !p.Exists:
	case p.Name != d.Name || p.Type != d.Type || p.Node != d.Node:
		return nil, problem.New(problem.InvalidState, "pool %s cannot become another one", p.Name)
	case p.Path == d.Path && maps.Equal(p.Options, d.Options):
		return nil, nil
	}
	return []any{d.Defined}, nil
}

// Evolve folds one event. Unknown ones change nothing.
func Evolve(p Pool, event any) Pool {
	if ev, ok := event.(wire.Defined); ok {
		return Pool{Exists: true, Defined: ev}
	}
	return p
}

// Intent is nil: a pool waits for no effect.
func Intent(Pool) *events.Intent { return nil }

// Names are what an event claims and releases.
func Names(p Pool, event any) (claim, release []eventstore.Name) {
	if ev, ok := event.(wire.Defined); ok && !p.Exists {
		return []eventstore.Name{{Scope: wire.NameScope, Value: ev.Name}}, nil
	}
	return nil, nil
}
