// Package network decides about networks. It is pure: whatever is looked up or observed comes in a command. What the
// service asks of a hypervisor that keeps networks is here too, as Driver.
package network

import (
	"net/netip"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/network"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Network is the private state of a network.
type Network struct {
	Exists bool
	Ended  bool // deleted, or it did not come about
	Spec   wire.Spec
	Node   uuid.UUID
	State  wire.State
	Before wire.State // the state to go back to when a delete comes to nothing
	// Intent is the effect under way.
	Intent *events.Intent
}

// Lives says whether the network is to be there, on this node, and nothing is under way with it.
func (n Network) Lives(node uuid.UUID) bool {
	return n.Exists && !n.Ended && n.Node == node && n.Intent == nil
}

// Decider of networks.
var Decider = eventstore.Decider[Network]{
	Initial: func() Network { return Network{} },
	Decide:  Decide,
	Evolve:  Evolve,
}

// Intent is the effect that a network waits for.
func Intent(n Network) *events.Intent { return n.Intent }

// Names are what an event claims and releases.
func Names(n Network, event any) (claim, release []eventstore.Name) {
	switch ev := event.(type) {
	case wire.CreateRequested:
		return []eventstore.Name{{Scope: wire.NameScope, Value: ev.Spec.Name}}, nil
	case wire.Found:
		return []eventstore.Name{{Scope: wire.NameScope, Value: ev.Spec.Name}}, nil
	case wire.CreateFailed, wire.Deleted:
		return nil, []eventstore.Name{{Scope: wire.NameScope, Value: n.Spec.Name}}
	}
	return nil, nil
}

// Evolve folds one event. Unknown ones change nothing.
func Evolve(n Network, event any) Network {
	settle := func(s wire.State) { n.State, n.Intent = s, nil }
	active := func(moved *netip.Prefix) {
		settle(wire.StateActive)
		if moved != nil {
			n.Spec.IPv4 = moved
		}
	}
	switch ev := event.(type) {
	case wire.CreateRequested:
		n = Network{Exists: true, Spec: ev.Spec, Node: ev.Node, State: wire.StateCreating, Intent: &ev.Intent}
	case wire.Found:
		n = Network{Exists: true, Spec: ev.Spec, Node: ev.Node, State: ev.State}
	case wire.Created:
		active(ev.IPv4)
	case wire.Started:
		active(ev.IPv4)
	case wire.Stopped:
		settle(wire.StateInactive)
	case wire.Lost:
		settle(wire.StateError)
	case wire.DeleteRequested:
		n.Before, n.State, n.Intent = n.State, wire.StateDeleting, &ev.Intent
	case wire.DeleteFailed:
		settle(ev.State)
	case wire.CreateFailed, wire.Deleted:
		n.Ended, n.Intent = true, nil
	case wire.Yielded:
		n.Exists, n.Ended = true, true
	}
	return n
}

// busy names the operation under way, nil if nothing is.
func (n Network) busy() *problem.Problem {
	if n.Intent == nil {
		return nil
	}
	p := problem.New(problem.InvalidState, "the network is %s; another operation is under way", n.State)
	if n.Intent.Operation != uuid.Nil {
		p.Operation = n.Intent.Operation.String()
	}
	return p
}
