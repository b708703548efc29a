// Package eventstore records what happened, in order, once. A Store keeps streams of events; Run loads streams, lets a
// pure function decide, and appends what it decided. The implementations are in memory/ and postgres/, the suite that
// both pass is storetest/.
package eventstore

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

var (
	// ErrWrongVersion: a stream moved since it was loaded.
	ErrWrongVersion = errors.New("stream moved since it was loaded")
	// ErrUnknownEra: a position is of a log that is not this one.
	ErrUnknownEra = errors.New("position of an unknown era")
	// ErrUnavailable: the store cannot be reached now; what was asked may or may not have happened.
	ErrUnavailable = errors.New("event store unavailable")
	// ErrInvalid: what was to be appended cannot be recorded, now or ever.
	ErrInvalid = errors.New("append is not valid")
	// ErrKeyTaken: the idempotency key of an append is recorded already; Request says for which operation.
	ErrKeyTaken = errors.New("idempotency key is recorded already")
)

// KeyLifetime is how long an idempotency key is remembered.
const KeyLifetime = 24 * time.Hour

// OutcomeLifetime is how long the outcome of a command is kept at least. Whoever decides refuses a command past its
// deadline, which is much sooner.
const OutcomeLifetime = 7 * 24 * time.Hour

// FirstDue is how long after it was recorded an undecided command is due for publication, in case that whoever
// recorded it did not publish it, or that the transport lost it.
const FirstDue = 5 * time.Second

// NameTakenError: a name that an append claims belongs to another stream.
type NameTakenError struct {
	Name   Name
	Holder events.Stream
}

func (e *NameTakenError) Error() string {
	return "name " + e.Name.Scope + "/" + e.Name.Value + " is taken by " + string(e.Holder)
}

// Head is the end of a stream as it was loaded. The zero head is of a stream that does not exist.
type Head struct {
	Version int64
	Hash    []byte
	At      time.Time
}

// History is a stream as it was loaded.
type History struct {
	Stream events.Stream
	Head   Head
	Events []events.Event
}

// Name is unique in its scope over all streams: {"vm", "web-1"}.
type Name struct {
	Scope string
	Value string
}

// StreamAppend is what one stream gets.
type StreamAppend struct {
	Stream  events.Stream
	Head    Head // as loaded: the append fails with ErrWrongVersion when the stream has moved
	Events  []events.Draft
	Claim   []Name
	Release []Name
	// Open is the address ("compute/<node>") that has to finish what the stream's last events began, "" when nothing
	// is left to do. It is written whenever Events is not empty.
	Open string
}

// Outcome is what became of a command. Rejection is nil for an accepted one.
type Outcome struct {
	Position  events.Position // of the last event that it appended, zero if none
	Rejection *problem.Problem
}

// Idempotency remembers which operation a client's request became.
type Idempotency struct {
	Actor     string
	Key       string
	Request   []byte // digest of method, path, query and body
	Operation uuid.UUID
}

// Append is one transaction.
type Append struct {
	// Command is the id of what is being decided. Its outcome is recorded with the events, and a second append under
	// the same id appends nothing and returns the first outcome. uuid.Nil is for appends that decide nothing (the
	// request of an operation).
	Command   uuid.UUID
	Rejection *problem.Problem // recorded as the command's outcome
	Streams   []StreamAppend
	Meta      events.Meta
	// Send records commands that are undecided until an append names them in Command. Recording one that is known
	// already does nothing.
	Send        []events.Command
	Idempotency *Idempotency
	// MoreFollows says that another append will tell within milliseconds what came of this one. Readers are then
	// nudged for both at once, and 5 ms later if the other is slower.
	MoreFollows bool
}

// Result is what an append did.
type Result struct {
	Events    []events.Event // as recorded, with positions
	Outcome   Outcome
	Duplicate bool // the command had an outcome before; nothing was appended
}

// ReadOptions narrows a read of the whole log. Empty fields do not narrow.
type ReadOptions struct {
	Kinds  []string      // of stream
	Types  []string      // "vm.started", or "vm.*"
	Stream events.Stream // one stream
	Limit  int           // at most 10,000; 0 means 1,000
}

// PageSize is the limit that applies.
func (o ReadOptions) PageSize() int {
	if o.Limit <= 0 {
		return 1000
	}
	return min(o.Limit, 10_000)
}

// All says whether o leaves no event out.
func (o ReadOptions) All() bool { return len(o.Kinds) == 0 && len(o.Types) == 0 && o.Stream == "" }

// Match says whether o leaves an event in.
func (o ReadOptions) Match(e events.Event) bool {
	if o.Stream != "" && e.Stream != o.Stream {
		return false
	}
	if len(o.Kinds) > 0 && !slices.Contains(o.Kinds, e.Stream.Kind()) {
		return false
	}
	return len(o.Types) == 0 || slices.ContainsFunc(o.Types, func(t string) bool {
		if prefix, ok := strings.CutSuffix(t, "*"); ok {
			return strings.HasPrefix(e.Type, prefix)
		}
		return e.Type == t
	})
}

// Page is a piece of the log.
type Page struct {
	Events []events.Event
	// Next is where the next read goes on. It moves past events that the options left out.
	Next events.Position
	// More says that the page was full and a further read has something now.
	More bool
	// Held says that events are recorded behind the page that may not be read before a transaction under way has
	// ended, whose end nobody tells.
	Held bool
}

// Undecided is a recorded command without an outcome.
type Undecided struct {
	Command  events.Command
	Attempt  int // how often it has been published since it was recorded
	Recorded time.Time
}

// Reader reads what is recorded.
type Reader interface {
	// Load returns streams in the order asked, each whole. A stream that does not exist has a zero head.
	Load(ctx context.Context, streams ...events.Stream) ([]History, error)
	// Read returns events after a position in the log's order, and never one before which another may still appear.
	// A position of an unknown era is ErrUnknownEra.
	Read(ctx context.Context, after events.Position, opts ReadOptions) (Page, error)
	// End is a position at or after every event that Read could return now.
	End(ctx context.Context) (events.Position, error)
	// Outcome returns what became of a command, nil if it is not decided.
	Outcome(ctx context.Context, command uuid.UUID) (*Outcome, error)
	// Lookup returns the stream that holds a name, "" if none.
	Lookup(ctx context.Context, name Name) (events.Stream, error)
	// Holders returns the streams that hold a name of a scope.
	Holders(ctx context.Context, scope string) ([]events.Stream, error)
	// Open returns the streams that an address has to finish.
	Open(ctx context.Context, address string) ([]events.Stream, error)
	// Request returns what was recorded under an idempotency key, nil if nothing.
	Request(ctx context.Context, actor, key string) (*Idempotency, error)
}

// Store records and reads.
type Store interface {
	Reader
	// Append records one transaction. In this order: it takes the streams' locks, returns the stored outcome when the
	// command has one (Duplicate), fails with ErrKeyTaken when the idempotency key is recorded, with ErrWrongVersion
	// when a stream moved, inserts the events, then fails with *NameTakenError when a claimed name is another
	// stream's. Names are released before any is claimed. After a failure nothing is recorded.
	Append(ctx context.Context, a Append) (Result, error)
	// Locked takes the streams' locks, loads them, and appends what decide returns, in one transaction, so that it
	// cannot lose to another appender. A command that has an outcome is not decided again (Duplicate). What decide
	// returns may append only to the streams named here. decide must not use the store.
	Locked(ctx context.Context, command uuid.UUID, streams []events.Stream, decide Decision) (Result, error)

	// Due returns undecided commands whose next publication is due at a time, the longest due first. The first is
	// due FirstDue after it was recorded. A parked command is due at its deadline,
	// to be given up.
	Due(ctx context.Context, at time.Time, limit int) ([]Undecided, error)
	// Published counts a publication of an undecided command and sets the time of the next.
	Published(ctx context.Context, command uuid.UUID, next time.Time) error
	// Park takes an undecided command out of Due, because it went to the dead letters. It may still be decided.
	Park(ctx context.Context, command uuid.UUID) error
	// Unpark makes a command due at once. Published, Park and Unpark do nothing to a command that is unknown
	// or decided.
	Unpark(ctx context.Context, command uuid.UUID) error
	// Forget drops the outcomes of commands that were decided before a time, at most limit, and returns how many. A
	// command that is delivered again after that is decided again: whoever calls it knows that none is under way.
	Forget(ctx context.Context, before time.Time, limit int) (int, error)
	// Nudged is sent to, without blocking, after each append of this Store (see Append.MoreFollows); other processes
	// nudge over NATS.
	Nudged() <-chan struct{}
}

// Decision decides what to append from loaded histories, in the order in which they were asked for. It is pure and
// may be called again with newer histories.
type Decision func(histories []History) (Append, error)

// Run loads the streams, decides, and appends. When another appender was first it decides once more under the
// streams' locks, where it cannot lose.
func Run(ctx context.Context, s Store, command uuid.UUID, streams []events.Stream, decide Decision) (Result, error) {
	histories, err := s.Load(ctx, streams...)
	if err != nil {
		return Result{}, err
	}
	return RunFrom(ctx, s, command, histories, decide)
}

// RunFrom is Run from histories that are at hand. When they are not the streams' present it decides once more, as Run
// does.
func RunFrom(ctx context.Context, s Store, command uuid.UUID, histories []History, decide Decision) (Result, error) {
	a, err := decide(histories)
	if err != nil {
		return Result{}, err
	}
	a.Command = command
	r, err := s.Append(ctx, a)
	if !errors.Is(err, ErrWrongVersion) {
		return r, err
	}
	streams := make([]events.Stream, len(histories))
	for i, h := range histories {
		streams[i] = h.Stream
	}
	return s.Locked(ctx, command, streams, decide)
}

// After is the history once the events that an append recorded have come to it.
func (h History) After(r Result) History {
	for _, e := range r.Events {
		if e.Stream == h.Stream {
			h.Events = append(h.Events[:len(h.Events):len(h.Events)], e)
			h.Head = Head{Version: e.Version, Hash: e.Hash, At: e.At}
		}
	}
	return h
}
