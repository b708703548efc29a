// Package pool is the language of storage pools.
package pool

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// Kind of the streams of storage pools.
const Kind = "pool"

// NameScope is where names of pools are unique.
const NameScope = "pool"

// Defined says that a pool exists. A pool's id follows from node and name for those made at start.
type Defined struct {
	Name    string            `json:"name"`
	Type    string            `json:"type"` // dir
	Path    string            `json:"path"`
	Options map[string]string `json:"options"`
	Node    uuid.UUID         `json:"node"`
}

// Codec of storage pools.
var Codec = events.NewCodec(Kind, events.TypeOf[Defined]("pool.defined"))

// View is a pool as the API returns it.
type View struct {
	events.Common
	Type    string            `json:"type"`
	Path    string            `json:"path"`
	Options map[string]string `json:"options"`
	Node    uuid.UUID         `json:"node"`
	State   string            `json:"state"` // active
}

// Resource describes pools to the gateway.
var Resource = events.Resource{
	Kind: Kind, Collection: "storage/pools", Domain: "storage", NameScope: NameScope, Codec: Codec,
	Apply: events.NewApply(Codec, func(v *View, event any, _ events.Event) bool {
		if ev, ok := event.(Defined); ok {
			v.Name, v.Type, v.Path, v.Options, v.Node, v.State = ev.Name, ev.Type, ev.Path, ev.Options, ev.Node, "active"
		}
		return false
	}),
	Filters: []string{"type", "state", "node"},
}
