package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
)

const (
	appenders = 32
	batchSize = 64
)

// appends compares, at 32 connections that are new in each turn on every side: appends of one event to a new stream
// each from Go; pgbench calling the same function with rows of the same size; pgbench inserting such a row into a table
// like the log, with nothing around it; and appends of 64 events.
func appends(ctx context.Context, b *bench, r *result) error {
	l, err := b.postgres(ctx)
	if err != nil {
		return err
	}
	const database = "appends"
	pool, _, err := l.open(ctx, database, 1)
	if err != nil {
		return err
	}
	if r.fsync, err = fsyncMode(ctx, pool); err != nil {
		return err
	}
	dsn := l.server.DSN(database)
	pg, err := newPgbench(ctx, pool, l.dir, dsn)
	if err != nil {
		return err
	}
	each := b.of(400, 50) // appends of one connection in one turn
	const unit = "events/s"
	r.series, err = interleave(ctx, 1, b.of(11, 3),
		side{"Go, one event", unit, func(ctx context.Context, _ int) (float64, error) { return appendAll(ctx, dsn, each, 1) }},
		side{"pgbench, the same append", unit, func(ctx context.Context, turn int) (float64, error) {
			return pg.run(ctx, pg.append, turn, each)
		}},
		side{"pgbench, bare insert", unit, func(ctx context.Context, turn int) (float64, error) {
			return pg.run(ctx, pg.insert, turn, each)
		}},
		side{"Go, batches of 64", unit, func(ctx context.Context, _ int) (float64, error) {
			return appendAll(ctx, dsn, max(each/16, 4), batchSize)
		}},
	)
	if err != nil {
		return err
	}
	single, same, bare, batch := r.series[0], r.series[1], r.series[2], r.series[3]
	r.ratios = []ratio{
		atLeast("Go ÷ pgbench with the same append, p50", single.p50()/same.p50(), 0.6, 0.8),
		reported("Go ÷ bare insert, p50", single.p50()/bare.p50()),
		reported("pgbench with the same append ÷ bare insert, p50", same.p50()/bare.p50()),
		atLeast("batches of 64 ÷ single events, p50", batch.p50()/single.p50(), 8, 0),
	}
	return pg.compareRows(ctx, pool, r)
}

// appendMeta and appendEvent are what each append of this measurement holds.
var (
	appendMeta  = events.Meta{Actor: "uid:0", Auth: "peer", Correlation: node, Causation: node, Operation: node, Node: node}
	appendEvent = vm.Codec.Encode(vm.StopRequested{Force: true, TimeoutS: 30, Intent: events.Intent{
		Type: "vm.stop", Command: node, Operation: node, Deadline: time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC),
	}})
)

// appendAll lets each of the appenders append so many times, to a new stream each time, and returns how many events
// that makes in a second. Opening the connections does not count, as pgbench does not count it.
func appendAll(ctx context.Context, dsn string, times, events int) (float64, error) {
	pool, err := postgres.Connect(ctx, dsn, appenders)
	if err != nil {
		return 0, err
	}
	defer pool.Close()
	store, err := postgres.New(ctx, pool, postgres.Options{})
	if err != nil {
		return 0, err
	}
	if err := connectAll(ctx, pool); err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for range appenders {
		g.Go(func() error {
			for range times {
				if _, err := store.Append(ctx, freshAppend(events)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err = g.Wait()
	return float64(appenders*times*events) / time.Since(begin).Seconds(), err
}

func freshAppend(count int) eventstore.Append {
	drafts := make([]events.Draft, count)
	for i := range drafts {
		drafts[i] = appendEvent
	}
	return eventstore.Append{Meta: appendMeta, Streams: []eventstore.StreamAppend{{
		Stream: events.NewStream(vm.Kind, events.NewID()), Events: drafts,
	}}}
}

// pgbench runs scripts against a database.
type pgbench struct {
	program, dsn   string
	append, insert string // paths of scripts
}

// Scripts. Stream and event id are made of the turn, the client and a count, so that they are new each time and the
// index grows at its end, as it does with ids that begin with the time. The hash is as long as a real one.
const (
	pgbenchVars = `\set n :n + 1
\set at ((:turn + 1) * 100000000 + :n) * 64 + :client_id
`
	pgbenchRow = `'vm/' || lpad(to_hex(:at::bigint), 36, '0')`
	pgbenchID  = `lpad(to_hex(:at::bigint), 32, '0')::uuid`
	pgbenchSum = `decode(lpad(to_hex(:at::bigint), 64, '0'), 'hex')`

	pgbenchAppend = pgbenchVars + `SELECT duplicate, rejection, era, tx, seqs FROM eventstore.append(
 now(), NULL, NULL, %[1]s::jsonb,
 ARRAY[` + pgbenchRow + `], ARRAY[0]::bigint[], ARRAY['']::bytea[], ARRAY[''], ARRAY[1],
 ARRAY[` + pgbenchRow + `], ARRAY[1]::bigint[], ARRAY[` + pgbenchID + `], ARRAY[%[3]s], ARRAY[1]::smallint[], ARRAY[%[2]s::jsonb],
 ARRAY[now()], ARRAY['']::bytea[], ARRAY[` + pgbenchSum + `], NULL, NULL, NULL);
`
	pgbenchInsert = pgbenchVars + `INSERT INTO bench_events (era, seq, id, stream, version, type, schema, data, meta, at, prev_hash, hash)
 VALUES (1, :at, ` + pgbenchID + `, ` + pgbenchRow + `, 1, %[3]s, 1, %[2]s::jsonb, %[1]s::jsonb, now(), '', ` + pgbenchSum + `);
`
)

func newPgbench(ctx context.Context, pool *pgxpool.Pool, dir, dsn string) (*pgbench, error) {
	_, err := pool.Exec(ctx, "CREATE TABLE bench_events (LIKE eventstore.events INCLUDING DEFAULTS INCLUDING INDEXES)")
	if err != nil {
		return nil, fmt.Errorf("make the table of bare inserts: %w", err)
	}
	var bin string
	if err := pool.QueryRow(ctx, "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&bin); err != nil {
		return nil, fmt.Errorf("find pgbench: %w", err)
	}
	p := &pgbench{
		program: filepath.Join(bin, "pgbench"), dsn: dsn,
		append: filepath.Join(dir, "append.sql"), insert: filepath.Join(dir, "insert.sql"),
	}
	if p.program, err = exec.LookPath(p.program); err != nil {
		return nil, fmt.Errorf("find pgbench (on Debian in the package postgresql-contrib or postgresql): %w", err)
	}
	meta, err := json.Marshal(appendMeta)
	if err != nil {
		return nil, err
	}
	for path, script := range map[string]string{p.append: pgbenchAppend, p.insert: pgbenchInsert} {
		text := fmt.Sprintf(script, quoted(string(meta)), quoted(string(appendEvent.Data)), quoted(appendEvent.Type))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// quoted is a JSON document or a word as an SQL literal of a pgbench script, in which a colon before a letter begins a
// variable, even inside of quotes.
func quoted(text string) string {
	return "'" + strings.NewReplacer("'", "''", `":`, `": `).Replace(text) + "'"
}

var tps = regexp.MustCompile(`tps = ([0-9.]+) \(without initial connection time\)`)

// run runs a script so many times on each of the connections and returns the transactions of a second.
func (p *pgbench) run(ctx context.Context, script string, turn, times int) (float64, error) {
	cmd := exec.CommandContext(ctx, p.program, "--no-vacuum", "--protocol=prepared", "--file="+script,
		"--client="+strconv.Itoa(appenders), "--jobs=2", "--transactions="+strconv.Itoa(times),
		"--define=n=0", "--define=turn="+strconv.Itoa(turn), p.dsn)
	out, err := cmd.CombinedOutput()
	if err != nil {
		first, _, _ := strings.Cut(string(out), "\n  ") // every client says the same
		return 0, fmt.Errorf("pgbench: %w: %s", err, first[:min(len(first), 500)])
	}
	found := tps.FindSubmatch(out)
	if found == nil {
		return 0, fmt.Errorf("pgbench told no tps: %s", out)
	}
	return strconv.ParseFloat(string(found[1]), 64)
}

// compareRows makes sure that both sides of the comparison wrote rows of one size.
func (p *pgbench) compareRows(ctx context.Context, pool *pgxpool.Pool, r *result) error {
	const size = `SELECT avg(pg_column_size(e)) FILTER (WHERE stream LIKE 'vm/0000%'), avg(pg_column_size(e)) FILTER (WHERE stream NOT LIKE 'vm/0000%')
		FROM eventstore.events e WHERE version = 1`
	var theirs, ours float64
	if err := pool.QueryRow(ctx, size).Scan(&theirs, &ours); err != nil {
		return fmt.Errorf("compare rows: %w", err)
	}
	if theirs < 0.97*ours || theirs > 1.03*ours {
		return fmt.Errorf("a row of pgbench has %.0f bytes, one of Go %.0f: that is no comparison", theirs, ours)
	}
	r.note("rows have %.0f bytes from Go, %.0f from pgbench", ours, theirs)
	return nil
}
