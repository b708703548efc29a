package postgres

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore/chain"
)

// Finding is the first place at which a stream is not as it was recorded.
type Finding struct {
	Stream  events.Stream
	Version int64
	Problem string
}

func (f Finding) String() string {
	return fmt.Sprintf("%s version %d: %s", f.Stream, f.Version, f.Problem)
}

// Report is what Verify looked at and found.
type Report struct {
	Streams  int64
	Events   int64
	Findings []Finding // at most one of each stream
}

// Limits says what Verify cannot find.
const Limits = "Whoever rewrites a stream's events together with its head, or removes both, is found only against a head that was exported before."

// verifyPage is how many events Verify holds at a time.
const verifyPage = 2000

const (
	verifySQL = `SELECT e.era, e.tx, e.seq, e.id, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.at,
			e.prev_hash, e.hash, h.version, h.hash, h.at
		FROM eventstore.events e LEFT JOIN eventstore.heads h ON h.stream = e.stream
		WHERE (e.stream, e.version) > ($1, $2) ORDER BY e.stream, e.version LIMIT $3`

	emptySQL = `SELECT h.stream, h.version FROM eventstore.heads h
		WHERE NOT EXISTS (SELECT 1 FROM eventstore.events e WHERE e.stream = h.stream) ORDER BY h.stream`
)

// Verify recomputes the hash of every event and compares each stream with its head. The log may grow meanwhile.
// progress, if not nil, is told the state now and then. See Limits for what it cannot find.
func (s *Store) Verify(ctx context.Context, progress func(Report)) (Report, error) {
	v := verifier{}
	for {
		n, err := s.verifyPage(ctx, &v)
		if err != nil {
			return v.report, fmt.Errorf("verify events: %w", unavailable(err))
		}
		if n < verifyPage {
			break
		}
		if progress != nil {
			progress(v.report)
		}
	}
	v.endStream()

	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, emptySQL)
	if err != nil {
		return v.report, fmt.Errorf("verify heads: %w", unavailable(err))
	}
	empty, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f Finding, err error) {
		f.Problem = "the stream has a head and no events"
		return f, row.Scan((*string)(&f.Stream), &f.Version)
	})
	if err != nil {
		return v.report, fmt.Errorf("verify heads: %w", unavailable(err))
	}
	v.report.Findings = append(v.report.Findings, empty...)
	return v.report, nil
}

// verifyPage feeds the verifier the next events and says how many there were.
func (s *Store) verifyPage(ctx context.Context, v *verifier) (n int, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, verifySQL, string(v.last.Stream), v.last.Version, verifyPage)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	for ; rows.Next(); n++ {
		var (
			e  link
			id pgtype.UUID
		)
		err := rows.Scan(&e.position.Era, &e.position.Tx, &e.position.Seq, &id, (*string)(&e.Stream), &e.Version, &e.Type,
			&e.Schema, &e.Data, &e.Meta, &e.At, &e.prev, &e.hash, &e.headVersion, &e.headHash, &e.headAt)
		if err != nil {
			return n, err
		}
		e.ID = id.Bytes
		v.add(e)
	}
	return n, rows.Err()
}

// link is an event as it lies in the table, with its stream's head at that moment.
type link struct {
	chain.Record
	position    events.Position
	prev, hash  []byte
	headVersion pgtype.Int8
	headHash    []byte
	headAt      pgtype.Timestamptz
}

// verifier goes along the streams, one after the other.
type verifier struct {
	report Report
	last   link
	bad    bool // the stream has its finding
}

func (v *verifier) add(e link) {
	if e.Stream != v.last.Stream {
		v.endStream()
		v.last, v.bad = link{Record: chain.Record{Stream: e.Stream}}, false
		v.report.Streams++
	}
	v.report.Events++
	if problem := v.check(e); problem != "" {
		v.found(e.Version, problem)
	}
	v.last = e
}

// check says what is wrong with the event that follows the last.
func (v *verifier) check(e link) string {
	switch {
	case e.Version != v.last.Version+1:
		return fmt.Sprintf("version %d is missing", v.last.Version+1)
	case !bytes.Equal(e.prev, v.last.hash):
		return "the previous hash is not that of the event before"
	case e.position.Compare(v.last.position) <= 0:
		return "the position is not after that of the event before"
	}
	var err error
	if e.Data, err = chain.Canonical(e.Data); err != nil {
		return "the data could not have been recorded"
	}
	if e.Meta, err = chain.Canonical(e.Meta); err != nil {
		return "the meta could not have been recorded"
	}
	if !bytes.Equal(e.hash, chain.Sum(e.prev, e.Record)) {
		return "the hash does not match"
	}
	return ""
}

// endStream compares the last event of a stream with the head.
func (v *verifier) endStream() {
	switch l := v.last; {
	case l.Version == 0: // before the first stream
	case !l.headVersion.Valid:
		v.found(l.Version, "the stream has no head")
	case l.headVersion.Int64 != l.Version:
		v.found(l.Version, fmt.Sprintf("the stream ends here, its head is at version %d", l.headVersion.Int64))
	case !bytes.Equal(l.headHash, l.hash) || !l.headAt.Time.Equal(l.At):
		v.found(l.Version, "the head is not that of the last event")
	}
}

func (v *verifier) found(version int64, problem string) {
	if !v.bad {
		v.bad = true
		v.report.Findings = append(v.report.Findings, Finding{v.last.Stream, version, problem})
	}
}
