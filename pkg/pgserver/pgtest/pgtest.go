// Package pgtest gives tests a real Postgres. Database is what nearly every test wants; Server is for tests that kill
// or stop Postgres itself.
//
// In -short mode the calling test is skipped, and where no Postgres is installed it is skipped with a reason that the
// test command counts ("real: postgres: …").
//
// The servers run under a guard, a second process of the test binary, which stops them and removes their files when
// the test binary ends, however it ends. So a test package needs no TestMain; with Main it also waits for that.
package pgtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"horcrux/pkg/pgserver"
)

// limit bounds every step that talks to a server.
const limit = time.Minute

// connections is generous: tests contend on purpose.
const connections = 200

var (
	shared struct {
		once  sync.Once
		guard *guard
		err   error
	}
	databases atomic.Int64
)

// Database returns the DSN of a new, empty database, dropped when the test ends. All tests of a binary share one
// server, which does not sync to disk.
func Database(t testing.TB) string {
	t.Helper()
	skipShort(t)
	shared.once.Do(func() { shared.guard, shared.err = startGuard(modeServe) })
	require(t, shared.err)

	name := fmt.Sprintf("test_%d", databases.Add(1))
	run(t, shared.guard.dsn, "CREATE DATABASE "+name)
	t.Cleanup(func() { run(t, shared.guard.dsn, "DROP DATABASE "+name+" WITH (FORCE)") })
	return strings.Replace(shared.guard.dsn, "/"+pgserver.Database+"?", "/"+name+"?", 1)
}

// Run runs the tests of a binary and stops the shared server; it returns the exit code.
func Run(m interface{ Run() int }) int {
	code := m.Run()
	if shared.guard != nil {
		if err := shared.guard.close(); err != nil {
			fmt.Fprintln(os.Stderr, "pgtest:", err)
			return max(code, 1)
		}
	}
	return code
}

// Main is Run for a TestMain that does nothing else.
func Main(m *testing.M) { os.Exit(Run(m)) }

// Instance is a server of one test. It is durable, unlike the shared one.
type Instance struct {
	*pgserver.Server
	t       testing.TB
	options pgserver.Options
}

// Options returns what starts a durable server in a new folder. What the test leaves running there is stopped, and the
// folder removed, when the test ends.
func Options(t testing.TB) pgserver.Options {
	t.Helper()
	skipShort(t)
	g, err := startGuard(modeWatch)
	require(t, err)
	t.Cleanup(func() {
		if err := g.close(); err != nil {
			t.Errorf("pgtest: %v", err)
		}
	})
	o := options(g.dir)
	o.Volatile = false
	return o
}

// Server starts a server for this test alone, whose process the test may kill (Pid), stop and start again. It is
// stopped and removed when the test ends.
func Server(t testing.TB) *Instance {
	t.Helper()
	i := &Instance{t: t, options: Options(t)}
	i.Start()
	t.Cleanup(i.Stop)
	return i
}

// Start starts the server again after Stop. The DSN stays what it was.
func (i *Instance) Start() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	s, err := pgserver.Start(ctx, i.options)
	require(i.t, err)
	i.Server = s
}

// Stop shuts the server down in order.
func (i *Instance) Stop() {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := i.Server.Stop(ctx); err != nil {
		i.t.Errorf("pgtest: %v", err)
	}
}

// DSN returns the DSN of the database that every server has.
func (i *Instance) DSN() string { return i.Server.DSN(pgserver.Database) }

func skipShort(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: needs a real Postgres")
	}
}

// require ends the test on an error, as skipped when it is that Postgres is not installed.
func require(t testing.TB, err error) {
	t.Helper()
	if errors.Is(err, pgserver.ErrNotInstalled) {
		t.Skipf("real: postgres: %v", err)
	}
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
}

func run(t testing.TB, dsn, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	_, err = conn.Exec(ctx, sql)
	if err := errors.Join(err, conn.Close(ctx)); err != nil {
		t.Fatalf("pgtest: %s: %v", sql, err)
	}
}
