package network

import (
	"net/netip"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// View is a network as the API returns it.
type View struct {
	events.Common
	Mode   string        `json:"mode"`
	Bridge string        `json:"bridge"`
	IPv4   *netip.Prefix `json:"ipv4"`
	IPv6   *netip.Prefix `json:"ipv6"`
	DHCP   bool          `json:"dhcp"`
	Node   uuid.UUID     `json:"node"`
	State  State         `json:"state"`
}

// Resource describes networks to the gateway.
var Resource = events.Resource{
	Kind: Kind, Collection: "networks", Domain: "compute", NameScope: NameScope, Codec: Codec,
	Apply:   events.NewApply(Codec, apply),
	Begin:   events.NewBegin(Codec, apply),
	Filters: []string{"mode", "state", "bridge", "node"},
}

func apply(v *View, event any, _ events.Event) bool {
	begin := func(s Spec, node uuid.UUID, state State) {
		v.Name, v.Mode, v.Bridge, v.IPv4, v.IPv6, v.DHCP = s.Name, s.Mode, s.Bridge, s.IPv4, s.IPv6, s.DHCP
		v.Node, v.State = node, state
	}
	active := func(moved *netip.Prefix) {
		v.State = StateActive
		if moved != nil {
			v.IPv4 = moved
		}
	}
	switch ev := event.(type) {
	case CreateRequested:
		begin(ev.Spec, ev.Node, StateCreating)
	case Found:
		begin(ev.Spec, ev.Node, ev.State)
	case Created:
		active(ev.IPv4)
	case Started:
		active(ev.IPv4)
	case Stopped:
		v.State = StateInactive
	case Lost:
		v.State = StateError
	case DeleteRequested:
		v.State = StateDeleting
	case DeleteFailed:
		v.State = ev.State
	case Yielded:
		v.Name, v.State = ev.Name, StateError
		return true
	case CreateFailed, Deleted:
		return true
	}
	return false
}
