// Package volume decides about volumes. It is pure: whatever is looked up or observed comes in a command.
package volume

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// Phase of a volume's life.
type Phase int

// The phases. Absent comes before all, Ended after all: an id is used once.
const (
	Absent Phase = iota
	Creating
	Available
	Growing
	Deleting
	Ended
)

func (p Phase) String() string {
	return [...]string{"absent", "creating", "available", "growing", "deleting", "ended"}[p]
}

// Volume is the private state of a volume.
type Volume struct {
	Phase Phase
	wire.CreateData
	Node   uuid.UUID
	Made   bool  // it has been in the storage
	WantGB int64 // of one that grows, in GiB
	// Intent is the effect under way.
	Intent *events.Intent
}

// Decider of volumes.
var Decider = eventstore.Decider[Volume]{
	Initial: func() Volume { return Volume{} },
	Decide:  Decide,
	Evolve:  Evolve,
}

// Intent is the effect that a volume waits for.
func Intent(v Volume) *events.Intent { return v.Intent }

// Names are what an event claims and releases.
func Names(v Volume, event any) (claim, release []eventstore.Name) {
	switch ev := event.(type) {
	case wire.CreateRequested:
		return []eventstore.Name{{Scope: wire.NameScope(ev.Pool), Value: ev.Name}}, nil
	case wire.CreateFailed, wire.Deleted:
		return nil, []eventstore.Name{{Scope: wire.NameScope(v.Pool), Value: v.Name}}
	}
	return nil, nil
}

// Evolve folds one event. Unknown ones change nothing.
func Evolve(v Volume, event any) Volume {
	settle := func(p Phase) { v.Phase, v.Intent = p, nil }
	switch ev := event.(type) {
	case wire.CreateRequested:
		v = Volume{Phase: Creating, CreateData: ev.CreateData, Node: ev.Node, Intent: &ev.Intent}
	case wire.Created:
		v.Made = true
		settle(Available)
	case wire.ResizeRequested:
		v.Phase, v.Intent, v.WantGB = Growing, &ev.Intent, ev.SizeGB
	case wire.Resized:
		v.SizeGB = ev.SizeGB
		settle(Available)
	case wire.ResizeFailed:
		settle(Available)
	case wire.DeleteRequested:
		v.Phase, v.Intent = Deleting, &ev.Intent
	case wire.DeleteFailed:
		settle(Available)
	case wire.Released:
		v.Owner = ""
	case wire.CreateFailed, wire.Deleted:
		settle(Ended)
	}
	return v
}

// busy names the operation under way, nil if nothing is.
func (v Volume) busy() *problem.Problem {
	if v.Intent == nil {
		return nil
	}
	p := problem.New(problem.InvalidState, "the volume is %s; another operation is under way", v.Phase)
	if v.Intent.Operation != uuid.Nil {
		p.Operation = v.Intent.Operation.String()
	}
	return p
}
