package events

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
)

var (
	// ErrUnknownType: an event's type is not of its kind's language.
	ErrUnknownType = errors.New("unknown event type")
	// ErrNewerSchema: an event was written by a newer Horcrux.
	ErrNewerSchema = errors.New("event has a newer schema")
)

// Upcaster rewrites the data of one schema to the next. It is pure.
type Upcaster func(json.RawMessage) (json.RawMessage, error)

// Type binds a Go struct to an event type. Its schema is one more than it has upcasters.
type Type struct {
	name      string
	goType    reflect.Type
	upcasters []Upcaster
}

// TypeOf declares that T is the data of the event type. The upcasters lead from schema 1 to the present one.
func TypeOf[T any](name string, upcasters ...Upcaster) Type {
	return Type{name: name, goType: reflect.TypeFor[T](), upcasters: upcasters}
}

// Codec translates between the recorded form of a kind's events and its Go structs.
type Codec struct {
	Kind   string
	byName map[string]Type
	byType map[reflect.Type]Type
}

// NewCodec returns the codec of a kind. It panics on an event type or a struct declared twice.
func NewCodec(kind string, types ...Type) *Codec {
	c := &Codec{Kind: kind, byName: map[string]Type{}, byType: map[reflect.Type]Type{}}
	for _, t := range types {
		if _, ok := c.byName[t.name]; ok {
			panic("events: type declared twice: " + t.name)
		}
		if other, ok := c.byType[t.goType]; ok {
			panic(fmt.Sprintf("events: %s is declared as %s and as %s", t.goType, other.name, t.name))
		}
		c.byName[t.name], c.byType[t.goType] = t, t
	}
	return c
}

// Types lists the event types of the kind.
func (c *Codec) Types() []string {
	names := make([]string, 0, len(c.byName))
	for n := range c.byName {
		names = append(names, n)
	}
	return names
}

// Encode makes a draft of an event struct. It panics on a struct that the codec does not know: that is a mistake in
// the program, not in its input.
func (c *Codec) Encode(v any) Draft {
	t, ok := c.byType[reflect.TypeOf(v)]
	if !ok {
		panic(fmt.Sprintf("events: %T is not declared in the codec of %s", v, c.Kind))
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("events: marshal %T: %v", v, err))
	}
	return Draft{Type: t.name, Schema: 1 + len(t.upcasters), Data: data}
}

// Decode returns the event struct (a value, not a pointer) of a recorded event.
func (c *Codec) Decode(e Event) (any, error) {
	t, ok := c.byName[e.Type]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrUnknownType, e.Type)
	}
	data := e.Data
	if e.Schema > 1+len(t.upcasters) {
		return nil, fmt.Errorf("%w: %s schema %d", ErrNewerSchema, e.Type, e.Schema)
	}
	for _, up := range t.upcasters[max(e.Schema, 1)-1:] {
		var err error
		if data, err = up(data); err != nil {
			return nil, fmt.Errorf("upcast %s: %w", e.Type, err)
		}
	}
	v := reflect.New(t.goType)
	if err := json.Unmarshal(data, v.Interface()); err != nil {
		return nil, fmt.Errorf("decode %s: %w", e.Type, err)
	}
	return v.Elem().Interface(), nil
}
