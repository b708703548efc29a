package readmodel_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/pgserver"
)

var (
	server    *pgserver.Server
	databases atomic.Int64
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "readmodel")
	if err != nil {
		log.Print(err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		log.Print(err)
		return 1
	}
	server, err = pgserver.Start(ctx, pgserver.Options{Dir: filepath.Join(dir, "pg"), SocketDir: filepath.Join(dir, "s"), Volatile: true})
	if err != nil {
		log.Print(err)
		return 1
	}
	defer server.Stop(ctx)
	return m.Run()
}

// database returns a pool on an empty database.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	if err := server.CreateDatabase(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), server.DSN(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
