package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"horcrux/pkg/eventstore"
)

// Due implements eventstore.Store.
func (s *Store) Due(ctx context.Context, at time.Time, limit int) ([]eventstore.Undecided, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	rows, err := s.pool.Query(ctx, `SELECT command, attempts, recorded FROM eventstore.commands
		WHERE decided IS NULL AND next_attempt <= $1 ORDER BY next_attempt LIMIT $2`, at, limit)
	if err != nil {
		return nil, fmt.Errorf("due commands: %w", unavailable(err))
	}
	due, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (u eventstore.Undecided, err error) {
		var raw []byte
		if err := row.Scan(&raw, &u.Attempt, &u.Recorded); err != nil {
			return u, err
		}
		u.Recorded = u.Recorded.UTC()
		return u, json.Unmarshal(raw, &u.Command)
	})
	if err != nil {
		return nil, fmt.Errorf("due commands: %w", unavailable(err))
	}
	return due, nil
}

// Published implements eventstore.Store.
func (s *Store) Published(ctx context.Context, command uuid.UUID, next time.Time) error {
	return s.change(ctx, "count a publication of", command, `UPDATE eventstore.commands
		SET attempts = attempts + 1, next_attempt = $2 WHERE command_id = $1 AND decided IS NULL`, next)
}

// Park implements eventstore.Store.
func (s *Store) Park(ctx context.Context, command uuid.UUID) error {
	return s.change(ctx, "park", command, `UPDATE eventstore.commands
		SET next_attempt = (command->>'deadline')::timestamptz WHERE command_id = $1 AND decided IS NULL`)
}

// Unpark implements eventstore.Store.
func (s *Store) Unpark(ctx context.Context, command uuid.UUID) error {
	return s.change(ctx, "unpark", command, `UPDATE eventstore.commands
		SET next_attempt = $2 WHERE command_id = $1 AND decided IS NULL`, s.clock())
}

// Forget implements eventstore.Store.
func (s *Store) Forget(ctx context.Context, before time.Time, limit int) (int, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	tag, err := s.pool.Exec(ctx, `DELETE FROM eventstore.commands WHERE command_id = ANY (ARRAY(
		SELECT command_id FROM eventstore.commands WHERE decided < $1 LIMIT $2))`, before, limit)
	if err != nil {
		return 0, fmt.Errorf("forget commands: %w", unavailable(err))
	}
	return int(tag.RowsAffected()), nil
}

func (s *Store) change(ctx context.Context, what string, command uuid.UUID, sql string, args ...any) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if _, err := s.pool.Exec(ctx, sql, append([]any{command}, args...)...); err != nil {
		return fmt.Errorf("%s command %s: %w", what, command, unavailable(err))
	}
	return nil
}
