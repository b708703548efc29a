package postgres_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver/pgtest"
)

// An event with a smaller position can become visible after one with a greater. A reader that remembers the greatest
// seq it saw loses it; the fence makes the reader wait for it.
func TestNoEventIsLostUnderConcurrentCommit(t *testing.T) {
	dsn := pgtest.Database(t)
	s, slow := open(t, dsn, postgres.Options{}), connect(t, dsn)

	exec(t, slow, "BEGIN")
	exec(t, slow, appendByHand, string(newStream()))
	fast := add(t, s, newStream(), "vm.fast")

	naive := connect(t, dsn)
	const afterSeq = `SELECT coalesce(array_agg(type ORDER BY seq), '{}') FROM eventstore.events WHERE seq > $1`
	if got := scan[[]string](t, naive, afterSeq, 0); !slices.Equal(got, []string{"vm.fast"}) {
		t.Fatalf("the trap is not set: a naive reader sees %v", got)
	}
	first, err := s.Read(t.Context(), events.Position{}, eventstore.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Events) != 0 {
		t.Errorf("read %v past a transaction that may still put an event before it", first.Events)
	}
	if !first.Held {
		t.Error("the reader is not told that there is more to come")
	}

	exec(t, slow, "COMMIT")
	if got := scan[[]string](t, naive, afterSeq, fast.Events[0].Position.Seq); len(got) != 0 {
		t.Fatalf("the trap is not set: a naive reader still gets %v", got)
	}
	wantTypes(t, s, first.Next, "vm.slow", "vm.fast")
}

// A filtered reader's Next moves past what it left out, and that too may only go up to the fence.
func TestFilteredReaderWaitsAtTheFence(t *testing.T) {
	dsn := pgtest.Database(t)
	s, slow := open(t, dsn, postgres.Options{}), connect(t, dsn)
	exec(t, slow, "BEGIN")
	exec(t, slow, appendByHand, string(newStream()))
	add(t, s, newStream(), "vm.fast")
	opts := eventstore.ReadOptions{Types: []string{"vm.slow"}}
	p, err := s.Read(t.Context(), events.Position{}, opts)
	if err != nil {
		t.Fatal(err)
	}
	exec(t, slow, "COMMIT")
	wantTypes(t, s, events.Position{}, "vm.slow", "vm.fast")
	p, err = s.Read(t.Context(), p.Next, opts)
	if err != nil || len(p.Events) != 1 {
		t.Errorf("got %v, %v; want vm.slow", p.Events, err)
	}
}

// A transaction that writes before it takes the stream's lock has an older id than one that appends while it waits:
// version 2 would come before version 1. So the append refuses to run in it.
func TestOrderWithinAStreamCannotInvert(t *testing.T) {
	dsn := pgtest.Database(t)
	s, early := open(t, dsn, postgres.Options{}), connect(t, dsn)
	exec(t, early, "BEGIN")
	exec(t, early, "CREATE TEMPORARY TABLE written (n int) ON COMMIT DROP")
	_, err := early.Exec(t.Context(), appendByHand, string(newStream()))
	wantCode(t, err, "ZH005")
	exec(t, early, "ROLLBACK")

	// The locks are taken without an id.
	stream := newStream()
	exec(t, early, "BEGIN")
	exec(t, early, "SELECT eventstore.lock(NULL, ARRAY[$1::text])", string(stream))
	if id := scan[*uint64](t, early, "SELECT pg_current_xact_id_if_assigned()"); id != nil {
		t.Errorf("the lock took transaction id %d", *id)
	}
	exec(t, early, "ROLLBACK")
	add(t, s, stream, "vm.created")
}

// In a transaction with one snapshot the append would not see what the holder of the lock before it committed.
func TestAppendNeedsReadCommitted(t *testing.T) {
	dsn := pgtest.Database(t)
	open(t, dsn, postgres.Options{})
	conn := connect(t, dsn)
	exec(t, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	_, err := conn.Exec(t.Context(), appendByHand, string(newStream()))
	wantCode(t, err, "ZH005")
}

// Any transaction in the cluster that has an id holds the fence, also one of another database.
func TestForeignTransactionIsNamed(t *testing.T) {
	dsn := pgtest.Database(t)
	start := time.Now()
	s := open(t, dsn, postgres.Options{Clock: func() time.Time { return start }})
	foreign := connect(t, pgtest.Database(t)+"&application_name=backup-tool")
	exec(t, foreign, "BEGIN")
	exec(t, foreign, "SELECT pg_current_xact_id()")

	if lag, holder, err := s.Fence(t.Context()); err != nil || lag != 0 || holder != "" {
		t.Errorf("nothing waits, but lag %v by %q, %v", lag, holder, err)
	}
	add(t, s, newStream(), "vm.created")
	if got := readTypes(t, s, events.Position{}); len(got) != 0 {
		t.Errorf("read %v past the fence", got)
	}
	later := open(t, dsn, postgres.Options{Clock: func() time.Time { return start.Add(time.Minute) }})
	lag, holder, err := later.Fence(t.Context())
	if err != nil || lag.Round(time.Second) != time.Minute || !strings.Contains(holder, "backup-tool") {
		t.Errorf("lag %v by %q, %v; want a minute by backup-tool", lag, holder, err)
	}
	exec(t, foreign, "ROLLBACK")
	wantTypes(t, s, events.Position{}, "vm.created")
	if lag, holder, err := later.Fence(t.Context()); err != nil || strings.Contains(holder, "backup-tool") {
		t.Errorf("lag %v by %q, %v after its end", lag, holder, err)
	}
}

func TestPreparedTransactionIsNamed(t *testing.T) {
	server := pgtest.Server(t)
	conn, err := pgx.Connect(t.Context(), server.DSN())
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), "ALTER SYSTEM SET max_prepared_transactions = 2")
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	server.Start()

	s := open(t, server.DSN(), postgres.Options{})
	foreign := connect(t, server.DSN())
	exec(t, foreign, "BEGIN")
	exec(t, foreign, "CREATE TABLE foreign_table (n int)")
	exec(t, foreign, "PREPARE TRANSACTION 'forgotten'")
	add(t, s, newStream(), "vm.created")
	if _, holder, err := s.Fence(t.Context()); err != nil || !strings.Contains(holder, "prepared transaction 'forgotten'") {
		t.Errorf("held by %q, %v", holder, err)
	}
	if got := readTypes(t, s, events.Position{}); len(got) != 0 {
		t.Errorf("read %v past the fence", got)
	}
	exec(t, foreign, "ROLLBACK PREPARED 'forgotten'")
}

func TestLogRefusesChange(t *testing.T) {
	dsn := pgtest.Database(t)
	s, conn := open(t, dsn, postgres.Options{}), connect(t, dsn)
	stream := newStream()
	add(t, s, stream, "vm.created")
	for _, role := range []string{"origin", "replica"} {
		exec(t, conn, "SET session_replication_role = "+role)
		for _, change := range []string{
			"UPDATE eventstore.events SET type = 'vm.deleted'", "DELETE FROM eventstore.events",
			"TRUNCATE eventstore.events", "DELETE FROM eventstore.events WHERE false",
		} {
			_, err := conn.Exec(t.Context(), change)
			wantCode(t, err, "ZH004")
		}
	}
	wantTypes(t, s, events.Position{}, "vm.created")
}

func wantCode(t *testing.T, err error, code string) {
	t.Helper()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || pg.Code != code {
		t.Errorf("got error %v, want SQLSTATE %s", err, code)
	}
}
