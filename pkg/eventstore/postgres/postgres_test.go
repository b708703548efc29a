package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/eventstore/storetest"
	"horcrux/pkg/pgserver/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock func() time.Time) eventstore.Store {
		return open(t, pgtest.Database(t), postgres.Options{Clock: clock})
	})
}

// open opens a store until the test ends.
func open(t testing.TB, dsn string, opts postgres.Options) *postgres.Store {
	t.Helper()
	opts.Logger = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := postgres.Open(ctx, dsn, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}
