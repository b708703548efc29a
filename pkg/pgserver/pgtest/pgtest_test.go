package pgtest_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"horcrux/pkg/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// connect opens a connection that the test's end closes.
func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func TestDatabasesAreApart(t *testing.T) {
	a, b := connect(t, pgtest.Database(t)), connect(t, pgtest.Database(t))
	for _, conn := range []*pgx.Conn{a, b} {
		if _, err := conn.Exec(t.Context(), "CREATE TABLE mine (id int)"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDatabaseLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	pgtest.Database(t)
}

func TestDatabaseIsDroppedWithItsTest(t *testing.T) {
	var name string
	t.Run("inner", func(t *testing.T) {
		conn := connect(t, pgtest.Database(t))
		if err := conn.QueryRow(t.Context(), "SELECT current_database()").Scan(&name); err != nil {
			t.Fatal(err)
		}
	})
	if name == "" {
		t.Skip("inner was skipped")
	}
	var left int
	conn := connect(t, pgtest.Database(t))
	err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_database WHERE datname = $1", name).Scan(&left)
	if err != nil || left != 0 {
		t.Fatalf("%d databases called %s are left, %v", left, name, err)
	}
}

func TestServerMayBeKilledAndRestarted(t *testing.T) {
	s := pgtest.Server(t)
	conn := connect(t, s.DSN())
	if _, err := conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 42 AS n"); err != nil {
		t.Fatal(err)
	}
	before := s.DSN()
	if err := syscall.Kill(s.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	s.Start()
	if s.DSN() != before {
		t.Fatalf("the DSN moved from %s to %s", before, s.DSN())
	}
	var n int
	if err := connect(t, s.DSN()).QueryRow(t.Context(), "SELECT n FROM kept").Scan(&n); err != nil || n != 42 {
		t.Fatalf("got %d, %v", n, err)
	}
}
