// Package network is the language of networks that guests are on.
package network

import (
	"net/netip"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Kind of the streams of networks.
const Kind = "network"

// NameScope is where names of networks are unique.
const NameScope = "network"

// DefaultName is the name of the network that every node has from its first start.
const DefaultName = "default"

// DefaultID is the id of a node's network `default`, unless the node had one before us.
func DefaultID(node uuid.UUID) uuid.UUID { return events.DerivedID(Kind, node, DefaultName) }

// State of a network.
type State string

// The states.
const (
	StateCreating State = "creating"
	StateActive   State = "active"
	StateInactive State = "inactive" // the hypervisor knows it, and guests cannot be on it
	StateDeleting State = "deleting"
	StateError    State = "error" // the hypervisor does not know it
)

// The modes.
const (
	ModeNAT      = "nat"
	ModeIsolated = "isolated"
	ModeBridge   = "bridge"
)

// Spec is the configuration of a network, with every default filled in.
type Spec struct {
	Name   string        `json:"name"`
	Mode   string        `json:"mode"`
	Bridge string        `json:"bridge"` // of the host: ours, or in mode bridge somebody else's
	IPv4   *netip.Prefix `json:"ipv4"`   // the gateway's address and the range that it is in; nil for none
	IPv6   *netip.Prefix `json:"ipv6"`
	DHCP   bool          `json:"dhcp"`
	// Chosen says that the node chose IPv4, and may choose again where that has been taken.
	Chosen bool `json:"chosen,omitempty"`
}

// CreateData is the data of network.create. What it leaves open the node fills in.
type CreateData struct {
	Name   string  `json:"name"`
	Mode   string  `json:"mode"`
	Bridge string  `json:"bridge,omitempty"`
	IPv4   *string `json:"ipv4,omitempty"`
	IPv6   *string `json:"ipv6,omitempty"`
	DHCP   *bool   `json:"dhcp,omitempty"`
}

// CreateRequested is the intent to create; the name is claimed.
type CreateRequested struct {
	events.Intent
	Spec Spec      `json:"spec"`
	Node uuid.UUID `json:"node"`
}

// Created says that guests can be on the network. IPv4 is set where the node had to choose another range.
type Created struct {
	IPv4 *netip.Prefix `json:"ipv4,omitempty"`
}

// CreateFailed ends a network that did not come about. Its name is free.
type CreateFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// Found begins a network that nobody asked for: `default`, which was there or was made at the start of the node.
type Found struct {
	Spec  Spec      `json:"spec"`
	Node  uuid.UUID `json:"node"`
	State State     `json:"state"`
}

// Yielded ends, before it began, the network that the node would have made: it had one of that name already.
type Yielded struct {
	Name string    `json:"name"`
	To   uuid.UUID `json:"to"`
}

// Stopped says that the network is there and not active.
type Stopped struct {
	Cause string `json:"cause"`
}

// Lost says that the hypervisor does not know the network any more.
type Lost struct {
	Cause string `json:"cause"`
}

// Started says that the network is active again. IPv4 is set where the node had to choose another range.
type Started struct {
	Cause string        `json:"cause"`
	IPv4  *netip.Prefix `json:"ipv4,omitempty"`
}

// DeleteRequested is the intent to delete.
type DeleteRequested struct{ events.Intent }

// DeleteFailed says that the network is still there, in the state that it was in.
type DeleteFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// Deleted ends a network. Its name is free.
type Deleted struct{}

// Codec of networks.
var Codec = events.NewCodec(Kind,
	events.TypeOf[CreateRequested]("network.create_requested"),
	events.TypeOf[Created]("network.created"),
	events.TypeOf[CreateFailed]("network.create_failed"),
	events.TypeOf[Found]("network.found"),
	events.TypeOf[Yielded]("network.yielded"),
	events.TypeOf[Stopped]("network.stopped"),
	events.TypeOf[Lost]("network.lost"),
	events.TypeOf[Started]("network.started"),
	events.TypeOf[DeleteRequested]("network.delete_requested"),
	events.TypeOf[DeleteFailed]("network.delete_failed"),
	events.TypeOf[Deleted]("network.deleted"),
)
