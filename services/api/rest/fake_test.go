package rest

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

// A second, tiny domain: all that the gateway is told of it is a resource, and the routes in widget.yaml.
type (
	widgetMade struct {
		Name   string    `json:"name"`
		Colour string    `json:"colour"`
		Node   uuid.UUID `json:"node"`
	}
	widgetPainted struct {
		Colour string `json:"colour"`
	}
	widgetGone struct{}

	widgetView struct {
		events.Common
		Colour string    `json:"colour"`
		Node   uuid.UUID `json:"node"`
	}
)

var (
	widgetCodec = events.NewCodec("widget", events.TypeOf[widgetMade]("widget.made"),
		events.TypeOf[widgetPainted]("widget.painted"), events.TypeOf[widgetGone]("widget.gone"))
	widgetResource = &events.Resource{
		Kind: "widget", Collection: "widgets", Domain: "toys", NameScope: "widget", Codec: widgetCodec,
		Apply: events.NewApply(widgetCodec, func(v *widgetView, event any, _ events.Event) bool {
			switch e := event.(type) {
			case widgetMade:
				v.Name, v.Colour, v.Node = e.Name, e.Colour, e.Node
			case widgetPainted:
				v.Colour = e.Colour
			case widgetGone:
				return true
			}
			return false
		}),
		Revise: func(current, target json.RawMessage) (*events.Revision, error) {
			var now, then widgetView
			if err := errors.Join(json.Unmarshal(current, &now), json.Unmarshal(target, &then)); err != nil || now.Colour == then.Colour {
				return nil, err
			}
			data, err := json.Marshal(widgetPainted{then.Colour})
			return &events.Revision{Type: "widget.paint", Data: data}, err
		},
		Filters: []string{"colour"},
	}
)

// service decides commands in the process, as an engine would over the bus.
type service struct {
	t     *testing.T
	store eventstore.Store
	node  uuid.UUID

	mu     sync.Mutex
	deaf   bool             // answers nobody, decides nothing
	down   *problem.Problem // rejects everything with it
	hold   bool             // accepts, and ends no operation
	asked  []events.Command
	effect int // how many commands had one
	ending map[uuid.UUID]chan []events.Event
}

func (s *service) set(change func(*service)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// Ask implements submit.Bus.
func (s *service) Ask(ctx context.Context, cmd events.Command) (bus.Decision, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, cmd)
	if s.deaf {
		return bus.Decision{}, bus.ErrNoDecision
	}
	return s.decide(ctx, cmd)
}

// Ending implements submit.Bus.
func (s *service) Ending(op uuid.UUID) (<-chan []events.Event, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := make(chan []events.Event, 1)
	s.ending[op] = c
	return c, func() { s.set(func(s *service) { delete(s.ending, op) }) }
}

// LastEnd implements submit.Bus.
func (s *service) LastEnd() events.Position { return events.Position{} }

func (s *service) decide(ctx context.Context, cmd events.Command) (bus.Decision, error) {
	op := events.NewStream(operation.Kind, cmd.Meta.Operation)
	r, err := eventstore.Run(ctx, s.store, cmd.ID, []events.Stream{cmd.Stream(), op}, func(h []eventstore.History) (eventstore.Append, error) {
		object := eventstore.StreamAppend{Stream: h[0].Stream, Head: h[0].Head}
		progress := eventstore.StreamAppend{Stream: h[1].Stream, Head: h[1].Head}
		no := s.down
		switch {
		case no != nil:
		case cmd.IfVersion != nil && *cmd.IfVersion != h[0].Head.Version:
			no = problem.New(problem.VersionConflict, "the object has version %d", h[0].Head.Version)
		case h[0].Head.Version == 0 && cmd.Verb() != "create":
			no = problem.New(problem.NotFound, "there is no such object")
		default:
			object, no = s.happen(object, h[0], cmd)
		}
		a := eventstore.Append{Meta: cmd.Meta, Rejection: no}
		if no != nil {
			progress.Events = []events.Draft{operation.Codec.Encode(operation.Failed{Problem: no})}
			a.Streams = []eventstore.StreamAppend{progress}
			return a, nil
		}
		progress.Events = []events.Draft{operation.Codec.Encode(operation.Started{Node: s.node})}
		if !s.hold {
			progress.Events = append(progress.Events, operation.Codec.Encode(operation.Succeeded{}))
		}
		a.Streams = []eventstore.StreamAppend{object, progress}
		return a, nil
	})
	if taken := (*eventstore.NameTakenError)(nil); errors.As(err, &taken) {
		was := s.down
		s.down = problem.New(problem.NameTaken, "the name is taken")
		defer func() { s.down = was }()
		return s.decide(ctx, cmd)
	}
	if err != nil {
		return bus.Decision{}, err
	}
	if r.Outcome.Rejection == nil {
		s.effect++
	}
	if c := s.ending[cmd.Meta.Operation]; c != nil && !s.hold && !r.Duplicate {
		h, err := s.store.Load(ctx, op)
		if err != nil {
			return bus.Decision{}, err
		}
		c <- h[0].Events
	}
	return bus.Decision{Command: cmd.ID, Position: r.Outcome.Position, Rejection: r.Outcome.Rejection}, nil
}

// happen is what the domains do: just enough of each.
func (s *service) happen(object eventstore.StreamAppend, h eventstore.History, cmd events.Command) (eventstore.StreamAppend, *problem.Problem) {
	record := func(c *events.Codec, drafts ...any) {
		for _, d := range drafts {
			object.Events = append(object.Events, c.Encode(d))
		}
	}
	last := ""
	if len(h.Events) > 0 {
		last = h.Events[len(h.Events)-1].Type
	}
	switch cmd.Type {
	case "widget.create":
		d := data[widgetMade](s.t, cmd)
		d.Node = s.node
		object.Claim = []eventstore.Name{{Scope: "widget", Value: d.Name}}
		record(widgetCodec, d)
	case "widget.paint":
		record(widgetCodec, data[widgetPainted](s.t, cmd))
	case "widget.delete":
		record(widgetCodec, widgetGone{})
		object.Release = []eventstore.Name{{Scope: "widget", Value: data[widgetMade](s.t, events.Command{Data: h.Events[0].Data}).Name}}
	case "vm.create":
		d := data[vm.CreateData](s.t, cmd)
		object.Claim = []eventstore.Name{{Scope: vm.NameScope, Value: d.Spec.Name}}
		record(vm.Codec, vm.CreateRequested{Spec: d.Spec, Node: s.node, Operation: cmd.Meta.Operation},
			vm.Created{NativeID: "1", Accelerator: "tcg"})
		if d.Start {
			record(vm.Codec, vm.Started{})
		}
	case "vm.import":
		object.Claim = []eventstore.Name{{Scope: vm.NameScope, Value: "old"}}
		record(vm.Codec, vm.ImportRequested{Spec: vm.Spec{Name: "old", Backend: "qemu", Tags: []string{}, Disks: []vm.Disk{}, Networks: []vm.NIC{}, Adopted: true}, Node: s.node},
			vm.Imported{NativeID: "old", Accelerator: "kvm", State: vm.StateRunning})
	case "vm.start":
		if last == "vm.started" {
			return object, problem.New(problem.InvalidState, "it runs already")
		}
		record(vm.Codec, vm.Started{})
	case "vm.stop", "vm.shutdown":
		record(vm.Codec, vm.Stopped{Cause: "destroyed"})
	case "vm.update":
		changed := data[vm.Fields](s.t, cmd) // of the values that tests change the update is the fields
		record(vm.Codec, vm.Updated{Change: vm.Change{Changed: changed}})
	case "vm.delete":
		record(vm.Codec, vm.Deleted{})
	case "volume.create":
		d := data[volume.CreateData](s.t, cmd)
		object.Claim = []eventstore.Name{{Scope: volume.NameScope(d.Pool), Value: d.Name}}
		record(volume.Codec, volume.CreateRequested{CreateData: d, Node: s.node}, volume.Created{Type: "file", Path: "/x", Format: d.Format})
	case "volume.delete":
		record(volume.Codec, volume.Deleted{})
	case "operation.cancel":
		return object, problem.New(problem.InvalidState, "it cannot be stopped")
	default:
		s.t.Errorf("command %s", cmd.Type)
	}
	return object, nil
}

func data[T any](t *testing.T, cmd events.Command) (v T) {
	if err := json.Unmarshal(cmd.Data, &v); err != nil {
		t.Errorf("data of %s: %v", cmd.Type, err)
	}
	return v
}

// finish ends an operation that was held.
func (s *service) finish(id uuid.UUID) {
	stream := events.NewStream(operation.Kind, id)
	h, err := s.store.Load(s.t.Context(), stream)
	if err == nil {
		_, err = s.store.Append(s.t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{{
			Stream: stream, Head: h[0].Head, Events: []events.Draft{operation.Codec.Encode(operation.Succeeded{})},
		}}})
	}
	if err != nil {
		s.t.Error(err)
	}
}

// definePool makes a pool, which no request can yet.
func (s *service) definePool(name string) uuid.UUID {
	id := events.NewID()
	_, err := s.store.Append(s.t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{{
		Stream: events.NewStream(pool.Kind, id), Claim: []eventstore.Name{{Scope: pool.NameScope, Value: name}},
		Events: []events.Draft{pool.Codec.Encode(pool.Defined{Name: name, Type: "dir", Path: "/p", Options: map[string]string{}, Node: s.node})},
	}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

func (s *service) commands(kind string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.asked {
		if slices.Contains([]string{c.Kind(), ""}, kind) {
			n++
		}
	}
	return n
}
