package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/chain"
)

const (
	appendSQL = `SELECT duplicate, rejection, era, tx, seqs FROM eventstore.append(
		$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)`
	lockSQL = `SELECT eventstore.lock($1, $2)`
)

// Append implements eventstore.Store, in one round trip.
func (s *Store) Append(ctx context.Context, a eventstore.Append) (r eventstore.Result, err error) {
	defer s.appended(time.Now(), &r, &err)
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sealed, err := chain.Seal(a, s.clock())
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", err)
	}
	args, err := appendArgs(a, sealed)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", err)
	}
	r, err = scanAppend(s.pool.QueryRow(ctx, appendSQL, args...), a, sealed)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append: %w", appendError(err))
	}
	if !r.Duplicate {
		s.nudges.Nudge(a)
	}
	return r, nil
}

// Locked implements eventstore.Store, in two round trips: begin, lock and load; append and commit.
func (s *Store) Locked(ctx context.Context, command uuid.UUID, streams []events.Stream, decide eventstore.Decision) (r eventstore.Result, err error) {
	defer s.appended(time.Now(), &r, &err)
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append under lock: %w", unavailable(err))
	}
	defer conn.Release() // closes the connection when its transaction is still open
	defer func() {
		if err == nil || conn.Conn().IsClosed() {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, rollback := conn.Exec(ctx, "rollback"); rollback != nil {
			s.log.WarnContext(ctx, "roll back an append", "error", rollback)
		}
	}()

	outcome, histories, err := lockAndLoad(ctx, conn.Conn(), command, streams)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append under lock: %w", appendError(err))
	}
	if outcome != nil {
		if _, err := conn.Exec(ctx, "rollback"); err != nil {
			return eventstore.Result{}, fmt.Errorf("append under lock: %w", unavailable(err))
		}
		return eventstore.Result{Outcome: *outcome, Duplicate: true}, nil
	}
	a, err := decide(histories)
	if err != nil {
		return eventstore.Result{}, err
	}
	a.Command = command
	for _, sa := range a.Streams {
		if !slices.Contains(streams, sa.Stream) {
			return eventstore.Result{}, fmt.Errorf("append under lock: %w: stream %s is not locked", eventstore.ErrInvalid, sa.Stream)
		}
	}
	r, err = s.appendAndCommit(ctx, conn.Conn(), a)
	if err != nil {
		return eventstore.Result{}, fmt.Errorf("append under lock: %w", appendError(err))
	}
	s.nudges.Nudge(a)
	return r, nil
}

// lockAndLoad begins a transaction. Each statement after the lock has a snapshot of its own, and so sees what the
// holders before committed.
func lockAndLoad(ctx context.Context, conn *pgx.Conn, command uuid.UUID, streams []events.Stream) (*eventstore.Outcome, []eventstore.History, error) {
	b := &pgx.Batch{}
	b.Queue("begin isolation level read committed")
	b.Queue(lockSQL, nullable(command), texts(streams))
	var outcome *eventstore.Outcome
	b.Queue(outcomeSQL, command).QueryRow(func(row pgx.Row) (err error) {
		outcome, err = scanOutcome(row)
		return err
	})
	var histories []eventstore.History
	b.Queue(loadSQL, texts(streams)).Query(func(rows pgx.Rows) (err error) {
		histories, err = scanHistories(rows, streams)
		return err
	})
	if err := conn.SendBatch(ctx, b).Close(); err != nil {
		return nil, nil, err
	}
	return outcome, histories, nil
}

func (s *Store) appendAndCommit(ctx context.Context, conn *pgx.Conn, a eventstore.Append) (eventstore.Result, error) {
	sealed, err := chain.Seal(a, s.clock())
	if err != nil {
		return eventstore.Result{}, err
	}
	args, err := appendArgs(a, sealed)
	if err != nil {
		return eventstore.Result{}, err
	}
	var r eventstore.Result
	b := &pgx.Batch{}
	b.Queue(appendSQL, args...).QueryRow(func(row pgx.Row) (err error) {
		r, err = scanAppend(row, a, sealed)
		return err
	})
	b.Queue("commit")
	return r, conn.SendBatch(ctx, b).Close()
}

// name is one claim or release, as the function claim takes it.
type name struct {
	Stream events.Stream `json:"stream"`
	Scope  string        `json:"scope"`
	Value  string        `json:"value"`
	Claim  bool          `json:"claim"`
}

// appendArgs are the arguments of appendSQL.
func appendArgs(a eventstore.Append, sealed chain.Sealed) ([]any, error) {
	n, m := len(a.Streams), len(sealed.Events)
	var (
		streams  = make([]string, n)
		heads    = make([]int64, n)
		prev     = make(pgtype.FlatArray[[]byte], n)
		open     = make([]string, n)
		ends     = make([]int32, n)
		names    []name
		of       = make([]string, m)
		versions = make([]int64, m)
		ids      = make(pgtype.FlatArray[pgtype.UUID], m)
		types    = make([]string, m)
		schemas  = make([]int16, m)
		data     = make(pgtype.FlatArray[json.RawMessage], m)
		ats      = make([]time.Time, m)
		prevs    = make(pgtype.FlatArray[[]byte], m)
		hashes   = make(pgtype.FlatArray[[]byte], m)
	)
	end := 0
	for i, sa := range a.Streams {
		streams[i], heads[i], prev[i], open[i] = string(sa.Stream), sa.Head.Version, notNull(sa.Head.Hash), sa.Open
		end += len(sa.Events)
		if len(sa.Events) > 0 {
			ends[i] = int32(end)
		}
		for _, r := range sa.Release {
			names = append(names, name{sa.Stream, r.Scope, r.Value, false})
		}
		for _, c := range sa.Claim {
			names = append(names, name{sa.Stream, c.Scope, c.Value, true})
		}
	}
	for i, e := range sealed.Events {
		of[i], versions[i], ids[i], types[i] = string(e.Stream), e.Version, pgtype.UUID{Bytes: e.ID, Valid: true}, e.Type
		schemas[i], data[i], ats[i] = int16(e.Schema), e.Data, e.At
		prevs[i], hashes[i] = notNull(e.PrevHash), e.Hash
	}
	var namesJSON, requestJSON []byte
	var err error
	if names != nil {
		if namesJSON, err = json.Marshal(names); err != nil {
			return nil, err
		}
	}
	if k := a.Idempotency; k != nil {
		requestJSON, err = json.Marshal(map[string]any{
			"actor": k.Actor, "key": k.Key, "request": notNull(k.Request), "operation": k.Operation,
		})
		if err != nil {
			return nil, err
		}
	}
	return []any{
		sealed.Now, nullable(a.Command), sealed.Rejection, sealed.Meta,
		streams, heads, prev, open, ends,
		of, versions, ids, types, schemas, data, ats, prevs, hashes,
		namesJSON, send(sealed.Send), requestJSON,
	}, nil
}

// scanAppend completes the sealed events with the positions they got.
func scanAppend(row pgx.Row, a eventstore.Append, sealed chain.Sealed) (eventstore.Result, error) {
	var (
		duplicate bool
		rejection []byte
		era       pgtype.Int2
		tx        pgtype.Uint64
		seqs      []int64
	)
	if err := row.Scan(&duplicate, &rejection, &era, &tx, &seqs); err != nil {
		return eventstore.Result{}, err
	}
	if duplicate {
		var seq pgtype.Int8
		if len(seqs) > 0 {
			seq.Int64 = seqs[0]
		}
		o, err := newOutcome(era, tx, seq, rejection)
		return eventstore.Result{Outcome: o, Duplicate: true}, err
	}
	r := eventstore.Result{Events: sealed.Events, Outcome: eventstore.Outcome{Rejection: a.Rejection}}
	if len(seqs) != len(r.Events) {
		return eventstore.Result{}, fmt.Errorf("%d events recorded, %d sent", len(seqs), len(r.Events))
	}
	for i, seq := range seqs {
		r.Events[i].Position = events.Position{Era: era.Int16, Tx: tx.Uint64, Seq: seq}
		r.Outcome.Position = r.Events[i].Position
	}
	return r, nil
}

// send is NULL where no commands are sent.
func send(docs [][]byte) pgtype.FlatArray[json.RawMessage] {
	if len(docs) == 0 {
		return nil
	}
	out := make(pgtype.FlatArray[json.RawMessage], len(docs))
	for i, d := range docs {
		out[i] = d
	}
	return out
}

// nullable is NULL for the nil id.
func nullable(id uuid.UUID) pgtype.UUID { return pgtype.UUID{Bytes: id, Valid: id != uuid.Nil} }

// notNull is empty instead of NULL.
func notNull(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func texts(streams []events.Stream) []string {
	out := make([]string, len(streams))
	for i, s := range streams {
		out[i] = string(s)
	}
	return out
}
