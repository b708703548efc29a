package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// lockSpace is the first half of the two-integer advisory locks that the store takes for a session. Those of appends
// are of the other, one-integer kind.
const lockSpace = 0x68637278

// migrate brings the schema eventstore up to date. Processes that start together take turns.
func migrate(ctx context.Context, pool *pgxpool.Pool, log *slog.Logger) (err error) {
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if _, err := conn.Exec(ctx, `SELECT pg_advisory_lock($1, 0)`, lockSpace); err != nil {
		return err
	}
	defer func() {
		if _, unlock := conn.Exec(ctx, `SELECT pg_advisory_unlock($1, 0)`, lockSpace); unlock != nil {
			err = errors.Join(err, unlock, conn.Conn().Close(ctx)) // the lock ends with its session
		}
	}()
	if _, err := conn.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS eventstore`); err != nil {
		return err
	}

	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	versions, err := database.NewStore(database.DialectPostgres, "eventstore.migrations")
	if err != nil {
		return err
	}
	db := stdlib.OpenDBFromPool(pool)
	defer func() { err = errors.Join(err, db.Close()) }()
	provider, err := goose.NewProvider("", db, files, goose.WithStore(versions), goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return err
	}
	done, err := provider.Up(ctx)
	if err != nil {
		return err
	}
	for _, m := range done {
		log.InfoContext(ctx, "event store migrated", "migration", fmt.Sprint(m.Source.Version), "took", m.Duration)
	}
	return nil
}
