package network

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/network"
	"horcrux/pkg/problem"
)

// The commands from outside. What they need to know of the node is looked up before.
type (
	// Create accepts a new network on this node.
	Create struct {
		events.Intent
		Spec wire.Spec
		Node uuid.UUID
	}
	// Delete accepts the end of a network that nobody uses. Users are the guests that do.
	Delete struct {
		events.Intent
		Users []string
	}
)

// The facts.
type (
	// Made: the network is active, with another range than was recorded where Moved says so.
	Made struct{ Moved *netip.Prefix }
	// Removed: the hypervisor does not know it any more.
	Removed struct{}
	// Failed: the effect of the intent came to nothing.
	Failed struct{ Problem *problem.Problem }
	// Found: a network that nobody asked for is there, or had to be and could not.
	Found wire.Found
	// Yielded: the node has a network of this name under another id.
	Yielded wire.Yielded
	// Observed: the network was seen in a state, without anybody having asked for it.
	Observed struct {
		Node  uuid.UUID // where it was looked for
		State wire.State
		Cause string
		Moved *netip.Prefix
	}
)

// Decide says what happens.
func Decide(n Network, c any) ([]any, error) {
	switch c := c.(type) {
	case Create:
		if n.Exists {
			return nil, problem.New(problem.InvalidState, "there is or was a network of this id already")
		}
		return []any{wire.CreateRequested{Intent: c.Intent, Spec: c.Spec, Node: c.Node}}, nil
	case Delete:
		return n.delete(c)
	case Made, Removed, Failed:
		return n.fact(c), nil
	case Found:
		if n.Exists {
			return nil, nil
		}
		return []any{wire.Found(c)}, nil
	case Yielded:
		if n.Exists {
			return nil, nil
		}
		return []any{wire.Yielded(c)}, nil
	case Observed:
		return n.observed(c), nil
	}
	return nil, fmt.Errorf("no such command: %T", c)
}

func (n Network) delete(c Delete) ([]any, error) {
	if !n.Exists || n.Ended {
		return nil, problem.New(problem.NotFound, "there is no such network")
	}
	if p := n.busy(); p != nil {
		return nil, p
	}
	if len(c.Users) > 0 {
		return nil, InUse(c.Users)
	}
	return []any{wire.DeleteRequested{Intent: c.Intent}}, nil
}

// InUse says which guests hold a network.
func InUse(users []string) *problem.Problem {
	const most = 5
	names := strings.Join(users[:min(most, len(users))], ", ")
	if more := len(users) - most; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	return problem.New(problem.InUse, "guests have an interface on it: %s", names)
}

// fact ends the effect under way. Where none is, or another, it is no news.
func (n Network) fact(c any) []any {
	if n.Intent == nil {
		return nil
	}
	creating := n.State == wire.StateCreating
	switch c := c.(type) {
	case Made:
		if creating {
			return []any{wire.Created{IPv4: c.Moved}}
		}
	case Removed:
		if !creating {
			return []any{wire.Deleted{}}
		}
	case Failed:
		if creating {
			return []any{wire.CreateFailed{Problem: c.Problem}}
		}
		return []any{wire.DeleteFailed{Problem: c.Problem, State: n.Before}}
	}
	return nil
}

// observed records a change that nobody asked for. While something is under way its effect looks for itself.
func (n Network) observed(c Observed) []any {
	if !n.Lives(c.Node) || c.State == n.State && c.Moved == nil {
		return nil
	}
	switch c.State {
	case wire.StateActive:
		return []any{wire.Started{Cause: c.Cause, IPv4: c.Moved}}
	case wire.StateInactive:
		return []any{wire.Stopped{Cause: c.Cause}}
	case wire.StateError:
		return []any{wire.Lost{Cause: c.Cause}}
	}
	return nil
}
