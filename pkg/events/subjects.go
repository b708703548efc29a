package events

import (
	"fmt"
	"strings"

	"github.com/google/uuid"
)

// The JetStream streams. Each can be lost and is filled again from Postgres.
const (
	CommandStream    = "HORCRUX_CMD" // work queue
	EventStream      = "HORCRUX_EVT" // limits; what automation subscribes to
	DeadLetterStream = "HORCRUX_DLQ" // limits
)

// NudgeSubject says, without payload, that something was appended.
const NudgeSubject = "horcrux.v1.nudge"

// Subjects of presence: services tell of themselves on the one, and are asked to on the other.
const (
	PresenceSubject    = "horcrux.v1.presence"
	PresenceAskSubject = "horcrux.v1.presence.ask"
)

// Subjects that the streams hold.
const (
	AllCommands    = "horcrux.v1.cmd.>"
	AllEvents      = "horcrux.v1.evt.>"
	AllDeadLetters = "horcrux.v1.dlq.>"
)

// Headers of messages.
const (
	ReplyHeader    = "Horcrux-Reply"    // core subject on which the sender of a command waits for its decision
	PositionHeader = "Horcrux-Position" // position of an event
)

// Subject is where a command is published: horcrux.v1.cmd.<domain>.<node|any>.<kind>.<id>.<verb>.
func (c Command) Subject() string {
	return fmt.Sprintf("horcrux.v1.cmd.%s.%s.%s.%s.%s", c.To.Domain, c.To.Node, c.Kind(), c.Target, c.Verb())
}

// CommandFilter is what the service of an address consumes.
func (a Address) CommandFilter() string {
	return fmt.Sprintf("horcrux.v1.cmd.%s.%s.>", a.Domain, a.Node)
}

// Consumer is the durable name under which a service consumes an address: compute_any, compute_<node>.
func (a Address) Consumer() string { return a.Domain + "_" + a.Node }

// Subject is where a recorded event is published: horcrux.v1.evt.<domain>.<kind>.<id>.<event>.
func (e Event) Subject(domain string) string {
	_, verb, _ := strings.Cut(e.Type, ".")
	return fmt.Sprintf("horcrux.v1.evt.%s.%s.%s.%s", domain, e.Stream.Kind(), e.Stream.ID(), verb)
}

// DeadLetterSubject is where a command goes that nobody could handle.
func DeadLetterSubject(domain, reason string) string {
	return fmt.Sprintf("horcrux.v1.dlq.%s.%s", domain, reason)
}

// RPCSubject is where a node answers a question: horcrux.v1.rpc.<domain>.<node>.<method>.
func RPCSubject(domain string, node uuid.UUID, method string) string {
	return fmt.Sprintf("horcrux.v1.rpc.%s.%s.%s", domain, node, method)
}

// TTYIn carries the bytes of a console's session to the node, TTYOut those from it.
func TTYIn(session uuid.UUID) string  { return "horcrux.v1.tty." + session.String() + ".in" }
func TTYOut(session uuid.UUID) string { return "horcrux.v1.tty." + session.String() + ".out" }

// ProgressSubject says that an operation has ended; the payload is its events as JSON, if they are not too long.
func ProgressSubject(operation uuid.UUID) string { return progressPrefix + operation.String() }

// AllProgress is the subject of every operation's progress.
const (
	AllProgress    = progressPrefix + "*"
	progressPrefix = "horcrux.v1.progress."
)

// ProgressOf is the operation that a progress subject is about.
func ProgressOf(subject string) (uuid.UUID, error) {
	id, _ := strings.CutPrefix(subject, progressPrefix)
	return uuid.Parse(id)
}
