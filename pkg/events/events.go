// Package events is the language that the services of Horcrux share: the envelope of a recorded event, the command
// message, streams, positions and subjects. Each domain's own words are in a package below it. It depends on
// nothing but the standard library and uuid.
package events

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Stream names the events of one object: "vm/0190e0a2-…".
type Stream string

// NewStream returns the stream of an object.
func NewStream(kind string, id uuid.UUID) Stream { return Stream(kind + "/" + id.String()) }

// Kind is the part before the slash.
func (s Stream) Kind() string {
	kind, _, _ := strings.Cut(string(s), "/")
	return kind
}

// ID is the object's id; uuid.Nil where the stream has none.
func (s Stream) ID() uuid.UUID {
	_, id, _ := strings.Cut(string(s), "/")
	u, err := uuid.Parse(id)
	if err != nil {
		return uuid.Nil
	}
	return u
}

// Meta says who caused something and on whose way it happened. It holds no secret.
type Meta struct {
	Actor       string    `json:"actor,omitempty"`        // "uid:0", "token:admin", "service:compute"
	Auth        string    `json:"auth,omitempty"`         // "peer", "token", "internal"
	OnBehalfOf  string    `json:"on_behalf_of,omitempty"` // the actor for whom a service acts
	Reason      string    `json:"reason,omitempty"`       // given by the user, or the cause of an observed change
	Correlation uuid.UUID `json:"correlation,omitzero"`   // the request that began it all
	Causation   uuid.UUID `json:"causation,omitzero"`     // the command that caused this event
	Operation   uuid.UUID `json:"operation,omitzero"`
	Node        uuid.UUID `json:"node,omitzero"` // the node that recorded it
	Traceparent string    `json:"traceparent,omitempty"`
}

// Principal is who wanted it: the one for whom a service acted, else the actor.
func (m Meta) Principal() string {
	if m.OnBehalfOf != "" {
		return m.OnBehalfOf
	}
	return m.Actor
}

// Draft is an event that has been decided and not yet recorded.
type Draft struct {
	Type   string
	Schema int
	Data   json.RawMessage
}

// Event is a recorded event.
type Event struct {
	ID       uuid.UUID       `json:"id"`
	Stream   Stream          `json:"stream"`
	Version  int64           `json:"version"` // 1 for the first event of a stream
	Type     string          `json:"type"`    // "vm.started"
	Schema   int             `json:"schema"`
	Data     json.RawMessage `json:"data"`
	Meta     Meta            `json:"meta"`
	At       time.Time       `json:"at"` // UTC, microseconds, never before the stream's previous event
	Position Position        `json:"position"`
	PrevHash []byte          `json:"-"`
	Hash     []byte          `json:"-"`
}

// AnyNode addresses a command to whichever node takes it first.
const AnyNode = "any"

// Address is where a service of one node takes commands.
type Address struct {
	Domain string `json:"domain"` // "compute"
	Node   string `json:"node"`   // a node's id, or AnyNode
}

// Command is what a service is asked to do. It is sent over JetStream and recorded, until it is decided, beside the
// events.
type Command struct {
	ID       uuid.UUID       `json:"id"`
	To       Address         `json:"to"`
	Type     string          `json:"type"` // "vm.start": kind and verb
	Target   uuid.UUID       `json:"target"`
	Data     json.RawMessage `json:"data,omitempty"`
	Meta     Meta            `json:"meta"`
	Deadline time.Time       `json:"deadline"` // past it the command is rejected with deadline_exceeded
	// IfVersion is the version that the target's stream must still have (If-Match).
	IfVersion *int64 `json:"if_version,omitempty"`
	// Step is the name of the step of the process (Meta.Operation) that sent the command; "" for the command of an
	// operation itself.
	Step string `json:"step,omitempty"`
	// ReplyTo is where the process runs that wants to know how the step ended.
	ReplyTo *Address `json:"reply_to,omitempty"`
	// Inputs holds the results of the process's earlier steps by name.
	Inputs map[string]json.RawMessage `json:"inputs,omitempty"`
	// Requested is the event that began the operation, for the command that it is about: whoever decides it need not
	// load what was recorded a moment ago. It is not recorded with the command, may be missing, and proves nothing.
	Requested *Chained `json:"requested,omitempty"`
}

// Chained is an event with its hash, to which the next of its stream can be chained.
type Chained struct {
	Event
	Hash []byte `json:"hash"`
}

// Kind is the kind of object that the command is for.
func (c Command) Kind() string {
	kind, _, _ := strings.Cut(c.Type, ".")
	return kind
}

// Verb is what is to be done with it.
func (c Command) Verb() string {
	_, verb, _ := strings.Cut(c.Type, ".")
	return verb
}

// Stream is the stream of the command's target.
func (c Command) Stream() Stream { return NewStream(c.Kind(), c.Target) }

// Intent names the command on whose behalf an effect runs. It is recorded with the event that began the effect, so
// that whoever takes the effect up, also after a crash, knows whom to tell how it ended.
type Intent struct {
	Type      string    `json:"type"` // of the command: "vm.start"
	Command   uuid.UUID `json:"command"`
	Operation uuid.UUID `json:"operation,omitzero"`
	Step      string    `json:"step,omitempty"`
	ReplyTo   *Address  `json:"reply_to,omitempty"`
	Deadline  time.Time `json:"deadline"`
}

// Intent is the intent that a command's acceptance begins.
func (c Command) Intent() Intent {
	return Intent{Type: c.Type, Command: c.ID, Operation: c.Meta.Operation, Step: c.Step, ReplyTo: c.ReplyTo, Deadline: c.Deadline}
}

// namespace keeps Horcrux's name-based ids apart from anybody else's.
var namespace = uuid.MustParse("6f1d1c5e-6a35-5f3e-9c0b-0e8d5a1b7c42")

// DerivedID is the id that follows from others: the same parts give the same id, on every node and after every crash.
func DerivedID(parts ...any) uuid.UUID {
	var b strings.Builder
	for i, p := range parts {
		if i > 0 {
			b.WriteByte(0)
		}
		fmt.Fprint(&b, p)
	}
	return uuid.NewSHA1(namespace, []byte(b.String()))
}

// NewID returns a UUIDv7.
func NewID() uuid.UUID { return uuid.Must(uuid.NewV7()) }
