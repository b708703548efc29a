package events

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Common are the fields that every view has. A view embeds it; Resource keeps it up to date.
type Common struct {
	ID        uuid.UUID `json:"id"`
	Name      string    `json:"name"`
	Version   int64     `json:"version"` // the stream's version; the ETag
	CreatedAt time.Time `json:"created_at"`
	UpdatedAt time.Time `json:"updated_at"`
}

// Base gives Resource the common fields of a view that embeds Common.
func (c *Common) Base() *Common { return c }

// Revision is the command that brings an object's configuration back to what it was.
type Revision struct {
	Type string // "vm.update"
	Data json.RawMessage
}

// Resource tells whatever serves a kind of object without knowing it (the gateway) all it needs: how its view is
// folded, listed, filtered and reverted.
type Resource struct {
	Kind       string // of stream: "vm"
	Collection string // path below /api: "vms"
	Domain     string // whose service takes its commands: "compute"
	// NameScope is where the object's name is unique: "vm".
	NameScope string
	Codec     *Codec
	// Apply folds one event into a view, both as the JSON that the API returns. A nil view is of an object that does
	// not exist yet. deleted says that the object ended with this event.
	Apply func(view json.RawMessage, e Event) (next json.RawMessage, deleted bool, err error)
	// Revise is nil for kinds whose configuration cannot change. A view that needs nothing gives a nil revision.
	Revise func(current, target json.RawMessage) (*Revision, error)
	// Filters are the fields by which a list can be filtered and sorted, besides name, created_at and updated_at:
	// top-level fields of the view. An array field matches any of its items.
	Filters []string
	// FilterNames maps a query parameter to the field of the view where they differ: tag → tags.
	FilterNames map[string]string
}

// Viewer is a pointer to a view struct that embeds Common.
type Viewer[V any] interface {
	*V
	Base() *Common
}

// NewApply makes the Apply of a Resource from a typed fold. apply changes the view by one decoded event and says
// whether the object ended.
func NewApply[V any, P Viewer[V]](codec *Codec, apply func(view *V, event any, e Event) (deleted bool)) func(json.RawMessage, Event) (json.RawMessage, bool, error) {
	return func(doc json.RawMessage, e Event) (json.RawMessage, bool, error) {
		var v V
		if doc != nil {
			if err := json.Unmarshal(doc, &v); err != nil {
				return nil, false, fmt.Errorf("view of %s: %w", e.Stream, err)
			}
		}
		event, err := codec.Decode(e)
		if err != nil {
			return nil, false, err
		}
		base := P(&v).Base()
		if doc == nil {
			base.ID, base.CreatedAt = e.Stream.ID(), e.At
		}
		deleted := apply(&v, event, e)
		base.Version, base.UpdatedAt = e.Version, e.At
		next, err := json.Marshal(&v)
		return next, deleted, err
	}
}
