package postgres_test

import (
	"testing"

	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver/pgtest"
)

func TestVerify(t *testing.T) {
	dsn := pgtest.Database(t)
	s := open(t, dsn, postgres.Options{})
	intact, victim := newStream(), newStream()
	for range 3 {
		add(t, s, intact, "vm.started", "vm.stopped")
		add(t, s, victim, "vm.started")
	}
	conn := connect(t, dsn)
	// Behind its back: as the owner of the table, who can switch the guard off.
	exec(t, conn, "ALTER TABLE eventstore.events DISABLE TRIGGER USER")

	if r, err := s.Verify(t.Context(), nil); err != nil || r.Streams != 2 || r.Events != 9 || len(r.Findings) != 0 {
		t.Fatalf("an intact log: %+v, %v", r, err)
	}
	for _, c := range []struct {
		name    string
		tamper  string
		version int64
	}{
		{"a byte of the data", `UPDATE eventstore.events SET data = '{"cpus":3,"name":"web-1"}' WHERE stream = $1 AND version = 2`, 2},
		{"a letter of a name", `UPDATE eventstore.events SET data = '{"cpus":2,"name":"web-2"}' WHERE stream = $1 AND version > 1`, 2},
		{"the meta", `UPDATE eventstore.events SET meta = '{"actor":"uid:1"}' WHERE stream = $1 AND version = 1`, 1},
		{"the type", `UPDATE eventstore.events SET type = 'vm.stopped' WHERE stream = $1 AND version = 3`, 3},
		{"the schema", `UPDATE eventstore.events SET schema = 2 WHERE stream = $1 AND version = 1`, 1},
		{"the time", `UPDATE eventstore.events SET at = at + interval '1 microsecond' WHERE stream = $1 AND version = 2`, 2},
		{"the id", `UPDATE eventstore.events SET id = gen_random_uuid() WHERE stream = $1 AND version = 2`, 2},
		{"the hash", `UPDATE eventstore.events SET hash = '' WHERE stream = $1 AND version = 2`, 2},
		{"the previous hash", `UPDATE eventstore.events SET prev_hash = '' WHERE stream = $1 AND version = 2`, 2},
		{"the position", `UPDATE eventstore.events SET tx = '3' WHERE stream = $1 AND version = 3`, 3},
		{"a number no double holds", `UPDATE eventstore.events SET data = '1e400' WHERE stream = $1 AND version = 3`, 3},
		{"the first event gone", `DELETE FROM eventstore.events WHERE stream = $1 AND version = 1`, 2},
		{"an event gone", `DELETE FROM eventstore.events WHERE stream = $1 AND version = 2`, 3},
		{"the last event gone", `DELETE FROM eventstore.events WHERE stream = $1 AND version = 3`, 2},
		{"all events gone", `DELETE FROM eventstore.events WHERE stream = $1`, 3},
		{"the head gone", `DELETE FROM eventstore.heads WHERE stream = $1`, 3},
		{"the head's version", `UPDATE eventstore.heads SET version = 2 WHERE stream = $1`, 3},
		{"the head's hash", `UPDATE eventstore.heads SET hash = '' WHERE stream = $1`, 3},
		{"the head's time", `UPDATE eventstore.heads SET at = at - interval '1 second' WHERE stream = $1`, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			exec(t, conn, "CREATE TABLE kept_events AS TABLE eventstore.events")
			exec(t, conn, "CREATE TABLE kept_heads AS TABLE eventstore.heads")
			defer func() {
				exec(t, conn, "TRUNCATE eventstore.events, eventstore.heads")
				exec(t, conn, "INSERT INTO eventstore.events OVERRIDING SYSTEM VALUE SELECT * FROM kept_events")
				exec(t, conn, "INSERT INTO eventstore.heads SELECT * FROM kept_heads")
				exec(t, conn, "DROP TABLE kept_events, kept_heads")
			}()
			exec(t, conn, c.tamper, string(victim))
			r, err := s.Verify(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Findings) != 1 || r.Findings[0].Stream != victim || r.Findings[0].Version != c.version {
				t.Errorf("found %v, want version %d of %s", r.Findings, c.version, victim)
			}
		})
	}
}

// Streams that lie across the border of two pages, while the log grows.
func TestVerifyManyPages(t *testing.T) {
	s := open(t, pgtest.Database(t), postgres.Options{})
	many := make([]string, 1500)
	for i := range many {
		many[i] = "vm.started"
	}
	streams := int64(4)
	for range streams {
		add(t, s, newStream(), many...)
	}
	calls := 0
	r, err := s.Verify(t.Context(), func(r postgres.Report) {
		calls++
		add(t, s, newStream(), "vm.created")
	})
	if err != nil || len(r.Findings) != 0 || r.Events < streams*1500 || calls == 0 {
		t.Errorf("%+v after %d calls of progress, %v", r, calls, err)
	}
}
