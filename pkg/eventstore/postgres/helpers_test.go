package postgres_test

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
)

// connect opens a connection beside the store, until the test ends.
func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func scan[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) (v T) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func newStream() events.Stream { return events.NewStream("vm", uuid.New()) }

// add appends events of types to the end of a stream.
func add(t testing.TB, s *postgres.Store, stream events.Stream, types ...string) eventstore.Result {
	t.Helper()
	h, err := s.Load(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Append(t.Context(), drafted(stream, h[0].Head, types...))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func drafted(stream events.Stream, head eventstore.Head, types ...string) eventstore.Append {
	sa := eventstore.StreamAppend{Stream: stream, Head: head}
	for _, name := range types {
		sa.Events = append(sa.Events, events.Draft{Type: name, Schema: 1, Data: json.RawMessage(`{"cpus":2,"name":"web-1"}`)})
	}
	return eventstore.Append{Streams: []eventstore.StreamAppend{sa}}
}

// readTypes reads everything that readers may see after a position.
func readTypes(t testing.TB, s *postgres.Store, after events.Position) []string {
	t.Helper()
	p, err := s.Read(t.Context(), after, eventstore.ReadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, e := range p.Events {
		out = append(out, e.Type)
	}
	return out
}

// wantTypes waits until readers see exactly these after a position: the server's own upkeep may hold them back for a
// moment.
func wantTypes(t testing.TB, s *postgres.Store, after events.Position, want ...string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	got := readTypes(t, s, after)
	for ; !slices.Equal(got, want) && time.Now().Before(deadline); got = readTypes(t, s, after) {
	}
	if !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
}

// appendByHand calls the append function as any SQL client can: one event, the first of a stream.
const appendByHand = `SELECT eventstore.append(
	_now => now(), _command => NULL, _rejection => NULL, _meta => '{}',
	_streams => ARRAY[$1::text], _heads => '{0}', _prev => ARRAY[''::bytea], _open => '{""}', _ends => '{1}',
	_event_streams => ARRAY[$1::text], _versions => '{1}', _ids => ARRAY[gen_random_uuid()], _types => '{vm.slow}',
	_schemas => '{1}', _data => '{"{}"}', _ats => ARRAY[now()], _prev_hashes => ARRAY[''::bytea], _hashes => ARRAY[''::bytea],
	_names => NULL, _send => NULL, _request => NULL)`
