package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// roomSQL takes a megabyte of the database's disk in a transaction that is rolled back: 128 pages, which are in the
// file from the moment they are filled. A row of less than 2 kB is not compressed.
const roomSQL = `CREATE TEMP TABLE room (v text);
	INSERT INTO room SELECT repeat('.', 1900) FROM generate_series(1, 512)`

// Ready is nil if the log can be written. A server whose disk is full, or that has become a standby, answers every
// question: so after an append that it could not make, Ready tries to write, until that or an append succeeds.
func (s *Store) Ready(ctx context.Context) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if !s.unwritten.Load() {
		if err := s.pool.Ping(ctx); err != nil {
			return fmt.Errorf("event store: %w", unavailable(err))
		}
		return nil
	}
	tx, err := s.pool.Begin(ctx)
	if err == nil {
		_, err = tx.Exec(ctx, roomSQL)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		err = errors.Join(err, tx.Rollback(end))
	}
	if err != nil {
		return fmt.Errorf("event store: nothing can be recorded: %w", unavailable(err))
	}
	s.unwritten.Store(false)
	return nil
}

// wrote notes for Ready what came of an append. One that was a duplicate has written nothing.
func (s *Store) wrote(duplicate bool, err error) {
	var pg *pgconn.PgError
	switch {
	case err == nil && !duplicate:
		s.unwritten.Store(false)
	case errors.As(err, &pg) && unwritable(pg.Code):
		s.unwritten.Store(true)
	}
}

// unwritable says whether a server with this error may still answer questions.
func unwritable(code string) bool {
	return code == "25006" || // read_only_sql_transaction
		code[:2] == "53" || // insufficient resources
		code[:2] == "58" // system error
}
