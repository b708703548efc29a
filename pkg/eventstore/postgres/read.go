package postgres

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
)

const (
	columns = `e.era, e.tx, e.seq, e.id, e.stream, e.version, e.type, e.schema, e.data, e.meta, e.at, e.prev_hash, e.hash`

	loadSQL = `SELECT ` + columns + ` FROM eventstore.events e WHERE e.stream = ANY($1) ORDER BY e.stream, e.version`

	// fence is the position before which nothing can appear any more: every transaction below the oldest one that is
	// running has ended.
	fence = `((SELECT max(era) FROM eventstore.eras), pg_snapshot_xmin(pg_current_snapshot()))`

	// endSQL also tells whether an era is known, and whether the fence holds something back.
	endSQL = `SELECT EXISTS (SELECT 1 FROM eventstore.eras WHERE era = $1), e.era, e.tx, e.seq,
			EXISTS (SELECT 1 FROM eventstore.events WHERE (era, tx) >= ` + fence + `)
		FROM (VALUES (1)) one LEFT JOIN LATERAL (
			SELECT era, tx, seq FROM eventstore.events WHERE (era, tx) < ` + fence + `
			ORDER BY era DESC, tx DESC, seq DESC LIMIT 1) e ON true`

	outcomeSQL = `SELECT rejection, era, tx, seq FROM eventstore.commands WHERE command_id = $1 AND decided IS NOT NULL`
)

// Load implements eventstore.Reader, in one round trip. The last event of a stream is its head: the chain makes the
// append compare it with the table of heads.
func (s *Store) Load(ctx context.Context, streams ...events.Stream) ([]eventstore.History, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, loadSQL, texts(streams))
	if err != nil {
		return nil, fmt.Errorf("load: %w", unavailable(err))
	}
	out, err := scanHistories(rows, streams)
	if err != nil {
		return nil, fmt.Errorf("load: %w", unavailable(err))
	}
	return out, nil
}

func scanHistories(rows pgx.Rows, streams []events.Stream) ([]eventstore.History, error) {
	loaded, err := scanEvents(rows)
	if err != nil {
		return nil, err
	}
	byStream := make(map[events.Stream][]events.Event, len(streams))
	for len(loaded) > 0 {
		n := 1
		for n < len(loaded) && loaded[n].Stream == loaded[0].Stream {
			n++
		}
		byStream[loaded[0].Stream], loaded = loaded[:n:n], loaded[n:]
	}
	out := make([]eventstore.History, len(streams))
	for i, name := range streams {
		out[i] = eventstore.History{Stream: name, Events: byStream[name]}
		if n := len(out[i].Events); n > 0 {
			last := out[i].Events[n-1]
			out[i].Head = eventstore.Head{Version: last.Version, Hash: last.Hash, At: last.At}
		}
	}
	return out, nil
}

// scanEvents reads rows of columns and closes them.
func scanEvents(rows pgx.Rows) ([]events.Event, error) {
	defer rows.Close()
	var (
		out  []events.Event
		meta []byte // of the event before: those of one append share it
	)
	for rows.Next() {
		var (
			e   events.Event
			id  pgtype.UUID
			raw []byte
		)
		err := rows.Scan(&e.Position.Era, &e.Position.Tx, &e.Position.Seq, &id, (*string)(&e.Stream), &e.Version, &e.Type,
			&e.Schema, (*[]byte)(&e.Data), &raw, &e.At, &e.PrevHash, &e.Hash)
		if err != nil {
			return nil, err
		}
		e.ID, e.At = id.Bytes, e.At.UTC()
		if n := len(out); n > 0 && bytes.Equal(raw, meta) {
			e.Meta = out[n-1].Meta
		} else if err := json.Unmarshal(raw, &e.Meta); err != nil {
			return nil, fmt.Errorf("meta of %s version %d: %w", e.Stream, e.Version, err)
		}
		meta = raw
		out = append(out, e)
	}
	return out, rows.Err()
}

// Read implements eventstore.Reader, in one round trip.
func (s *Store) Read(ctx context.Context, after events.Position, opts eventstore.ReadOptions) (eventstore.Page, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	sql, args := readSQL(after, opts)
	var (
		known, held bool
		end         events.Position
		read        []events.Event
	)
	// The end is looked up first: what is read after it may reach further, and what was left out up to it stays left
	// out.
	b := &pgx.Batch{}
	b.Queue(endSQL, after.Era).QueryRow(func(row pgx.Row) (err error) {
		known, end, held, err = scanEnd(row)
		return err
	})
	b.Queue(sql, args...).Query(func(rows pgx.Rows) (err error) {
		read, err = scanEvents(rows)
		return err
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return eventstore.Page{}, fmt.Errorf("read: %w", unavailable(err))
	}
	if !known && !after.IsZero() {
		return eventstore.Page{}, fmt.Errorf("read after era %d: %w", after.Era, eventstore.ErrUnknownEra)
	}
	limit := opts.PageSize()
	if len(read) > limit {
		return eventstore.Page{Events: read[:limit], Next: read[limit-1].Position, More: true}, nil
	}
	page := eventstore.Page{Events: read, Next: after, Held: held}
	if len(read) > 0 {
		page.Next = read[len(read)-1].Position
	}
	if end.Compare(page.Next) > 0 {
		page.Next = end
	}
	return page, nil
}

// readSQL asks for one event more than the page holds.
func readSQL(after events.Position, opts eventstore.ReadOptions) (string, []any) {
	args := []any{after.Era, after.Tx, after.Seq}
	var b strings.Builder
	era := "e.era"
	if opts.Stream != "" {
		era = "(e.era + 0)" // no index: a stream is found by its key, however long the log is
	}
	b.WriteString(`SELECT ` + columns + ` FROM eventstore.events e
		WHERE (` + era + `, e.tx, e.seq) > ($1, $2, $3) AND (` + era + `, e.tx) < ` + fence)
	where := func(condition string, arg any) {
		args = append(args, arg)
		fmt.Fprintf(&b, " AND "+condition, len(args))
	}
	if opts.Stream != "" {
		where(`e.stream = $%d`, string(opts.Stream))
	}
	if len(opts.Kinds) > 0 {
		where(`split_part(e.stream, '/', 1) = ANY($%d)`, opts.Kinds)
	}
	if len(opts.Types) > 0 {
		where(`e.type LIKE ANY($%d)`, patterns(opts.Types))
	}
	args = append(args, opts.PageSize()+1)
	fmt.Fprintf(&b, " ORDER BY %s, e.tx, e.seq LIMIT $%d", era, len(args))
	return b.String(), args
}

// patterns turns event types, or prefixes of them that end in *, into LIKE patterns.
func patterns(types []string) []string {
	escape := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)
	out := make([]string, len(types))
	for i, t := range types {
		prefix, wild := strings.CutSuffix(t, "*")
		out[i] = escape.Replace(prefix)
		if wild {
			out[i] += "%"
		}
	}
	return out
}

// End implements eventstore.Reader.
func (s *Store) End(ctx context.Context) (events.Position, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, end, _, err := scanEnd(s.pool.QueryRow(ctx, endSQL, 0))
	if err != nil {
		return events.Position{}, fmt.Errorf("end: %w", unavailable(err))
	}
	return end, nil
}

func scanEnd(row pgx.Row) (known bool, end events.Position, held bool, err error) {
	var (
		era pgtype.Int2
		tx  pgtype.Uint64
		seq pgtype.Int8
	)
	err = row.Scan(&known, &era, &tx, &seq, &held)
	return known, events.Position{Era: era.Int16, Tx: tx.Uint64, Seq: seq.Int64}, held, err
}

// Outcome implements eventstore.Reader.
func (s *Store) Outcome(ctx context.Context, command uuid.UUID) (*eventstore.Outcome, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	o, err := scanOutcome(s.pool.QueryRow(ctx, outcomeSQL, command))
	if err != nil {
		return nil, fmt.Errorf("outcome of command %s: %w", command, unavailable(err))
	}
	return o, nil
}

// scanOutcome returns nil where there is no row.
func scanOutcome(row pgx.Row) (*eventstore.Outcome, error) {
	var (
		rejection []byte
		era       pgtype.Int2
		tx        pgtype.Uint64
		seq       pgtype.Int8
	)
	if err := row.Scan(&rejection, &era, &tx, &seq); errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	o, err := newOutcome(era, tx, seq, rejection)
	return &o, err
}

func newOutcome(era pgtype.Int2, tx pgtype.Uint64, seq pgtype.Int8, rejection []byte) (o eventstore.Outcome, err error) {
	o.Position = events.Position{Era: era.Int16, Tx: tx.Uint64, Seq: seq.Int64}
	if rejection != nil {
		o.Rejection = new(problem.Problem)
		err = json.Unmarshal(rejection, o.Rejection)
	}
	return o, err
}

// Lookup implements eventstore.Reader.
func (s *Store) Lookup(ctx context.Context, name eventstore.Name) (events.Stream, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var stream string
	err := s.pool.QueryRow(ctx, `SELECT stream FROM eventstore.names WHERE scope = $1 AND value = $2`, name.Scope, name.Value).Scan(&stream)
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return "", fmt.Errorf("look up %s/%s: %w", name.Scope, name.Value, unavailable(err))
	}
	return events.Stream(stream), nil
}

// Open implements eventstore.Store.
func (s *Store) Open(ctx context.Context, address string) ([]events.Stream, error) {
	return s.streams(ctx, "open streams of "+address, `SELECT stream FROM eventstore.heads WHERE open = $1 ORDER BY stream`, address)
}

// Holders implements eventstore.Store.
func (s *Store) Holders(ctx context.Context, scope string) ([]events.Stream, error) {
	return s.streams(ctx, "holders of names of "+scope, `SELECT stream FROM eventstore.names WHERE scope = $1 ORDER BY stream`, scope)
}

func (s *Store) streams(ctx context.Context, what, sql string, args ...any) ([]events.Stream, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, unavailable(err))
	}
	streams, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (s events.Stream, err error) {
		return s, row.Scan((*string)(&s))
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, unavailable(err))
	}
	return streams, nil
}

// Request implements eventstore.Reader.
func (s *Store) Request(ctx context.Context, actor, key string) (*eventstore.Idempotency, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r := eventstore.Idempotency{Actor: actor, Key: key}
	var operation pgtype.UUID
	err := s.pool.QueryRow(ctx, `SELECT request, operation FROM eventstore.requests
		WHERE actor = $1 AND key = $2 AND recorded > $3`, actor, key, s.clock().Add(-eventstore.KeyLifetime)).Scan(&r.Request, &operation)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("request under a key: %w", unavailable(err))
	}
	r.Operation = operation.Bytes
	return &r, nil
}
