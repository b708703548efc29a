package readmodel_test

import (
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"horcrux/pkg/pgserver/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(exit(func() int { return pgtest.Run(m) })) }

type exit func() int

func (e exit) Run() int { return e() }

// database returns a pool on an empty database.
func database(t testing.TB) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
