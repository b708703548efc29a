package postgres_test

import (
	"bytes"
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver/pgtest"
)

// A dump restored into a fresh cluster, whose transaction ids start low: what is appended there would come before
// what is there already, and no reader would ever see it.
func TestRestoredDump(t *testing.T) {
	from := pgtest.Database(t)
	source := open(t, from, postgres.Options{})
	stream := newStream()
	burnTransactions(t, from)
	old := add(t, source, stream, "vm.created", "vm.started")

	to := pgtest.Server(t).DSN()
	restore(t, from, to)
	_, err := postgres.Open(t.Context(), to, postgres.Options{})
	wantIs(t, err, postgres.ErrRestored)

	era, err := postgres.Rebase(t.Context(), to)
	if err != nil || era != 2 {
		t.Fatalf("rebase: era %d, %v", era, err)
	}
	s := open(t, to, postgres.Options{})
	added := add(t, s, stream, "vm.stopped")
	if p := added.Events[0].Position; p.Era != 2 || p.Compare(old.Outcome.Position) <= 0 {
		t.Errorf("the new event is at %+v, the old ones end at %+v", p, old.Outcome.Position)
	}
	wantTypes(t, s, events.Position{}, "vm.created", "vm.started", "vm.stopped")
	wantTypes(t, s, old.Events[0].Position, "vm.started", "vm.stopped")
	unknown := events.Position{Era: 3, Tx: 1, Seq: 1}
	_, err = s.Read(t.Context(), unknown, eventstore.ReadOptions{})
	wantIs(t, err, eventstore.ErrUnknownEra)
	_, err = source.Read(t.Context(), added.Outcome.Position, eventstore.ReadOptions{})
	wantIs(t, err, eventstore.ErrUnknownEra)
	if r, err := s.Verify(t.Context(), nil); err != nil || len(r.Findings) != 0 || r.Events != 3 {
		t.Errorf("verify: %+v, %v", r, err)
	}
}

// A running store notices that another process opened an era.
func TestRebaseUnderARunningStore(t *testing.T) {
	dsn := pgtest.Database(t)
	s := open(t, dsn, postgres.Options{})
	stream := newStream()
	add(t, s, stream, "vm.created")
	if _, err := postgres.Rebase(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	if era := add(t, s, stream, "vm.started").Outcome.Position.Era; era != 2 {
		t.Errorf("appended in era %d, want 2", era)
	}
	wantTypes(t, s, events.Position{}, "vm.created", "vm.started")
}

// burnTransactions takes the cluster of a database far beyond the ids of a fresh one.
func burnTransactions(t *testing.T, dsn string) {
	t.Helper()
	conn := connect(t, dsn)
	exec(t, conn, "CREATE TEMPORARY TABLE burnt (n int)")
	exec(t, conn, `DO $$ BEGIN
		FOR i IN 1..3000 LOOP
			BEGIN INSERT INTO burnt VALUES (i); EXCEPTION WHEN unique_violation THEN NULL; END;
		END LOOP;
	END $$`)
}

// restore copies the log as pg_dump and pg_restore do.
func restore(t *testing.T, from, to string) {
	t.Helper()
	open(t, to, postgres.Options{}).Close()
	source, target := connect(t, from), connect(t, to)
	for _, table := range []string{"events", "heads"} {
		var b bytes.Buffer
		if _, err := source.PgConn().CopyTo(t.Context(), &b, "COPY eventstore."+table+" TO STDOUT (FORMAT binary)"); err != nil {
			t.Fatal(err)
		}
		if _, err := target.PgConn().CopyFrom(t.Context(), &b, "COPY eventstore."+table+" FROM STDIN (FORMAT binary)"); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, target, "SELECT setval('eventstore.events_seq_seq', $1)", scan[int64](t, source, "SELECT max(seq) FROM eventstore.events"))
}
