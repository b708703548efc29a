// Package chain makes the events of a stream a hash chain, so that a change behind the store's back is found. The
// stores seal with it what they append and verify with it what they hold.
package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// Record is what the hash of an event covers besides the previous hash. Data and Meta are canonical JSON. The
// position is left out: it belongs to the Postgres cluster, not to what happened.
type Record struct {
	Stream  events.Stream
	Version int64
	ID      uuid.UUID
	Type    string
	Schema  int
	At      time.Time
	Data    []byte
	Meta    []byte
}

// Sum is the hash of an event: SHA-256 over the previous hash (empty for the first event of a stream), stream,
// version, id, type, schema, at, data and meta, in this order, each preceded by its length in bytes as a 64-bit
// big-endian number. Version and schema are decimal, the id is in its textual form, at is in microseconds since 1970
// UTC, decimal.
func Sum(prev []byte, r Record) []byte {
	b := make([]byte, 0, 256+len(r.Data)+len(r.Meta))
	b = field(b, prev)
	b = field(b, string(r.Stream))
	b = field(b, strconv.FormatInt(r.Version, 10))
	b = field(b, r.ID.String())
	b = field(b, r.Type)
	b = field(b, strconv.Itoa(r.Schema))
	b = field(b, strconv.FormatInt(r.At.UnixMicro(), 10))
	b = field(b, r.Data)
	b = field(b, r.Meta)
	sum := sha256.Sum256(b)
	return sum[:]
}

func field[T []byte | string](b []byte, v T) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(len(v)))
	return append(b, v...)
}

// Sealed is an append as it will be recorded.
type Sealed struct {
	// Events are those of all streams, in the order of the append, complete but for their positions.
	Events    []events.Event
	Meta      []byte   // canonical JSON of the append's Meta
	Rejection []byte   // canonical JSON, nil if none
	Send      [][]byte // canonical JSON of the commands
	Now       time.Time
}

// Seal gives the drafts of an append their versions, ids, times and hashes. The id follows from the command and the
// index of the event in the append, where there is a command. The time is now or that of the stream's last event,
// whichever is later. An append that cannot be recorded is ErrInvalid.
func Seal(a eventstore.Append, now time.Time) (Sealed, error) {
	if err := validate(a); err != nil {
		return Sealed{}, err
	}
	s := Sealed{Now: now.UTC().Truncate(time.Microsecond)}
	var err error
	if s.Meta, err = marshal(a.Meta); err != nil {
		return Sealed{}, fmt.Errorf("meta: %w", err)
	}
	if a.Rejection != nil {
		if s.Rejection, err = marshal(a.Rejection); err != nil {
			return Sealed{}, fmt.Errorf("rejection: %w", err)
		}
	}
	for _, sa := range a.Streams {
		if err := s.seal(a, sa); err != nil {
			return Sealed{}, fmt.Errorf("%s: %w", sa.Stream, err)
		}
	}
	for _, c := range a.Send {
		raw, err := marshal(c)
		if err != nil {
			return Sealed{}, fmt.Errorf("command %s: %w", c.ID, err)
		}
		s.Send = append(s.Send, raw)
	}
	return s, nil
}

func marshal(v any) ([]byte, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", eventstore.ErrInvalid, err)
	}
	return Canonical(raw)
}

// seal adds one stream's events.
func (s *Sealed) seal(a eventstore.Append, sa eventstore.StreamAppend) error {
	at := s.Now
	if sa.Head.At.After(at) {
		at = sa.Head.At.UTC()
	}
	version, prev := sa.Head.Version, sa.Head.Hash
	for _, d := range sa.Events {
		data, err := Canonical(d.Data)
		if err != nil {
			return fmt.Errorf("%s: %w", d.Type, err)
		}
		id := events.NewID()
		if a.Command != uuid.Nil {
			id = events.DerivedID(a.Command, len(s.Events))
		}
		version++
		hash := Sum(prev, Record{
			Stream: sa.Stream, Version: version, ID: id, Type: d.Type, Schema: d.Schema, At: at, Data: data, Meta: s.Meta,
		})
		s.Events = append(s.Events, events.Event{
			ID: id, Stream: sa.Stream, Version: version, Type: d.Type, Schema: d.Schema, Data: data, Meta: a.Meta,
			At: at, PrevHash: prev, Hash: hash,
		})
		prev = hash
	}
	return nil
}

// validate refuses what no store could record.
func validate(a eventstore.Append) error {
	if a.Rejection != nil && a.Command == uuid.Nil {
		return fmt.Errorf("%w: a rejection needs a command", eventstore.ErrInvalid)
	}
	seen := make(map[events.Stream]bool, len(a.Streams))
	for _, sa := range a.Streams {
		if seen[sa.Stream] {
			return fmt.Errorf("%w: stream %s is named twice", eventstore.ErrInvalid, sa.Stream)
		}
		seen[sa.Stream] = true
		texts := []string{string(sa.Stream)}
		for _, d := range sa.Events {
			if d.Schema < 1 || d.Schema > 1<<15-1 {
				return fmt.Errorf("%w: schema %d of %s", eventstore.ErrInvalid, d.Schema, d.Type)
			}
			texts = append(texts, d.Type)
		}
		for _, n := range append(sa.Claim[:len(sa.Claim):len(sa.Claim)], sa.Release...) {
			texts = append(texts, n.Scope, n.Value)
		}
		for _, t := range texts {
			if t == "" || !storable(t) {
				return fmt.Errorf("%w: %s: %q is no stream, type or name", eventstore.ErrInvalid, sa.Stream, t)
			}
		}
		if !storable(sa.Open) {
			return fmt.Errorf("%w: %s: %q is no address", eventstore.ErrInvalid, sa.Stream, sa.Open)
		}
	}
	for _, c := range a.Send {
		if c.ID == uuid.Nil {
			return fmt.Errorf("%w: a command without an id", eventstore.ErrInvalid)
		}
	}
	if k := a.Idempotency; k != nil && (!storable(k.Actor) || !storable(k.Key)) {
		return fmt.Errorf("%w: idempotency key %q of %q", eventstore.ErrInvalid, k.Key, k.Actor)
	}
	return nil
}

// storable says whether text fits a Postgres text column.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }
