package network

import (
	"context"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/network"
)

// Definition is a network as a hypervisor keeps it. Its id is the hypervisor's own for it.
type Definition struct {
	ID uuid.UUID
	wire.Spec
}

// Seen is what a list tells of a network.
type Seen struct {
	ID      uuid.UUID
	Name    string
	Defined bool // it outlives its end
	Active  bool // guests can be on it
}

// State is what that means for a network of ours.
func (s Seen) State() wire.State {
	switch {
	case !s.Defined:
		return wire.StateError
	case !s.Active:
		return wire.StateInactive
	}
	return wire.StateActive
}

// Driver keeps the networks of one node. It does so as hypervisor.Driver does with domains: any number of callers at
// once, within the context's deadline, failing with the errors of package hypervisor. Every mutation can be repeated:
// what already holds is success.
type Driver interface {
	// DefineNetwork makes a network known under its id, to be started with the hypervisor. One of the same id is
	// replaced; an active one stays so, as it was, until it is stopped. ErrAlreadyExists when another has the name;
	// ErrInvalid when the hypervisor refuses.
	DefineNetwork(ctx context.Context, d Definition) error
	// StartNetwork makes it active. ErrNotFound; ErrInvalid when the node cannot have it.
	StartNetwork(ctx context.Context, id uuid.UUID) error
	// RemoveNetwork stops a network and forgets it. One that does not exist is success.
	RemoveNetwork(ctx context.Context, id uuid.UUID) error
	// NetworkStates observes all, others' too, in a number of calls that does not grow with theirs. ErrUnsupported when
	// the hypervisor keeps no networks.
	NetworkStates(ctx context.Context) ([]Seen, error)
	// DescribeNetwork observes the configuration of one, and whether it carries our mark. ErrNotFound.
	DescribeNetwork(ctx context.Context, id uuid.UUID) (d Definition, ours bool, err error)
	// NetworkGuests are the names of the guests that run and have an interface on it. ErrNotFound.
	NetworkGuests(ctx context.Context, id uuid.UUID) ([]string, error)
}
