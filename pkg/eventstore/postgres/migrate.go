package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
)

//go:embed migrations/*.sql
var migrations embed.FS

// lockSpace is the first half of the two-integer advisory locks that the store takes for a session. Those of appends
// are of the other, one-integer kind.
const lockSpace = 0x68637278

// migrate brings the schema eventstore up to date. Processes that start together take turns. It has connections of its
// own: a pool may have only one.
func migrate(ctx context.Context, config *pgx.ConnConfig, log *slog.Logger) (err error) {
	db := stdlib.OpenDB(*config)
	defer func() { err = errors.Join(err, db.Close()) }() // ends the sessions, and so the lock
	turn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, turn.Close()) }()
	for _, sql := range []string{
		fmt.Sprintf(`SELECT pg_advisory_lock(%d, 0)`, lockSpace),
		`CREATE SCHEMA IF NOT EXISTS eventstore`,
	} {
		if _, err := turn.ExecContext(ctx, sql); err != nil {
			return err
		}
	}

	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	versions, err := database.NewStore(database.DialectPostgres, "eventstore.migrations")
	if err != nil {
		return err
	}
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
