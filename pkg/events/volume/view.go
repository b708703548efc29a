package volume

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
)

// View is a volume as the API returns it.
type View struct {
	events.Common
	Pool   uuid.UUID     `json:"pool"`
	Node   uuid.UUID     `json:"node"`
	SizeGB int64         `json:"size_gb"`
	Format string        `json:"format"`
	Thin   bool          `json:"thin"`
	Path   *string       `json:"path"`
	Owner  events.Stream `json:"owner"` // "vm/…", "" for none
	State  string        `json:"state"` // creating, available, deleting
}

// Resource describes volumes to the gateway. Their path is below their pool's.
var Resource = events.Resource{
	Kind: Kind, Domain: "storage", Codec: Codec,
	Apply:   events.NewApply(Codec, apply),
	Begin:   events.NewBegin(Codec, apply),
	Filters: []string{"pool", "state", "owner", "format", "node"},
}

func apply(v *View, event any, _ events.Event) bool {
	switch ev := event.(type) {
	case CreateRequested:
		v.Name, v.Pool, v.Node, v.SizeGB, v.Format, v.Thin, v.Owner = ev.Name, ev.Pool, ev.Node, ev.SizeGB, ev.Format, ev.Thin, ev.Owner
		v.State = "creating"
	case Created:
		v.Path, v.State = &ev.Path, "available"
	case DeleteRequested:
		v.State = "deleting"
	case DeleteFailed:
		v.State = "available"
	case Resized:
		v.SizeGB = ev.SizeGB
	case Released:
		v.Owner = ""
	case CreateFailed, Deleted:
		return true
	}
	return false
}
