package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrRestored: the log was restored into a Postgres cluster whose transaction ids are behind those of its events, so
// that new events would come before old ones.
var ErrRestored = errors.New("the event log was restored from a dump: run `horcrux events rebase` once, it opens a new era and changes no event")

// checkEra refuses a log whose current era holds transactions that this cluster has yet to reach.
func checkEra(ctx context.Context, pool *pgxpool.Pool) error {
	var behind bool
	err := pool.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM eventstore.events
		WHERE (era, tx) >= ((SELECT max(era) FROM eventstore.eras), pg_snapshot_xmax(pg_current_snapshot())))`).Scan(&behind)
	if err != nil {
		return err
	}
	if behind {
		return ErrRestored
	}
	return nil
}

// Rebase opens a new era in a log that was restored from a dump (ErrRestored) and returns its number. It rewrites
// nothing: positions of the eras before stay valid, and come before all that is appended from now on.
func Rebase(ctx context.Context, dsn string) (era int, err error) {
	pool, err := Connect(ctx, dsn, 0)
	if err != nil {
		return 0, fmt.Errorf("rebase event log: %w", err)
	}
	defer pool.Close()
	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		// An append writes its heads before it looks which era it is.
		if _, err := tx.Exec(ctx, `LOCK TABLE eventstore.heads IN EXCLUSIVE MODE`); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `INSERT INTO eventstore.eras (era) SELECT max(era) + 1 FROM eventstore.eras RETURNING era`).Scan(&era)
	})
	if err != nil {
		return 0, fmt.Errorf("rebase event log: %w", unavailable(err))
	}
	return era, nil
}
