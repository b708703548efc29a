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
	Collection string // path below /api: "vms"; "" where it is below another object's
	Domain     string // whose service takes its commands: "compute"
	// NameScope is where the object's name is unique: "vm".
	NameScope string
	Codec     *Codec
	// Apply folds one event into a view, both as the JSON that the API returns. A nil view is of an object that does
	// not exist yet. deleted says that the object ended with this event. It is not needed where Begin is.
	Apply func(view json.RawMessage, e Event) (next json.RawMessage, deleted bool, err error)
	// Begin is nil, or does what Apply does for many events of one object without a round trip through JSON for each.
	Begin func(view json.RawMessage) (Fold, error)
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

// Fold is a view in the making.
type Fold interface {
	// Apply folds one event. After an error the view is what it was before.
	Apply(e Event) (deleted bool, err error)
	// Doc is the view as the API returns it, nil of an object without an event.
	Doc() (json.RawMessage, error)
}

// Fold begins with a view; nil is of an object that does not exist yet.
func (r *Resource) Fold(view json.RawMessage) (Fold, error) {
	if r.Begin != nil {
		return r.Begin(view)
	}
	return &docFold{apply: r.Apply, doc: view}, nil
}

type docFold struct {
	apply func(json.RawMessage, Event) (json.RawMessage, bool, error)
	doc   json.RawMessage
}

func (f *docFold) Apply(e Event) (bool, error) {
	next, deleted, err := f.apply(f.doc, e)
	if err != nil {
		return false, err
	}
	f.doc = next
	return deleted, nil
}

func (f *docFold) Doc() (json.RawMessage, error) { return f.doc, nil }

// viewFold keeps the view as a struct.
type viewFold[V any, P Viewer[V]] struct {
	view  V
	any   bool // the object has an event
	codec *Codec
	apply func(view *V, event any, e Event) (deleted bool)
}

func (f *viewFold[V, P]) Apply(e Event) (bool, error) {
	event, err := f.codec.Decode(e)
	if err != nil {
		return false, err
	}
	base := P(&f.view).Base()
	if !f.any {
		f.any, base.ID, base.CreatedAt = true, e.Stream.ID(), e.At
	}
	deleted := f.apply(&f.view, event, e)
	base.Version, base.UpdatedAt = e.Version, e.At
	return deleted, nil
}

func (f *viewFold[V, P]) Doc() (json.RawMessage, error) {
	if !f.any {
		return nil, nil
	}
	return json.Marshal(&f.view)
}

// NewBegin makes the Begin of a Resource from a typed fold. apply changes the view by one decoded event and says
// whether the object ended.
func NewBegin[V any, P Viewer[V]](codec *Codec, apply func(view *V, event any, e Event) (deleted bool)) func(json.RawMessage) (Fold, error) {
	return func(doc json.RawMessage) (Fold, error) {
		f := &viewFold[V, P]{any: doc != nil, codec: codec, apply: apply}
		if doc != nil {
			if err := json.Unmarshal(doc, &f.view); err != nil {
				return nil, fmt.Errorf("view of %s: %w", codec.Kind, err)
			}
		}
		return f, nil
	}
}

// NewApply makes the Apply of a Resource from the same typed fold.
func NewApply[V any, P Viewer[V]](codec *Codec, apply func(view *V, event any, e Event) (deleted bool)) func(json.RawMessage, Event) (json.RawMessage, bool, error) {
	begin := NewBegin[V, P](codec, apply)
	return func(doc json.RawMessage, e Event) (json.RawMessage, bool, error) {
		f, err := begin(doc)
		if err != nil {
			return nil, false, err
		}
		deleted, err := f.Apply(e)
		if err != nil {
			return nil, false, err
		}
		next, err := f.Doc()
		return next, deleted, err
	}
}
