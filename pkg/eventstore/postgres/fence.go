package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
)

const (
	heldSQL = `SELECT min(at) FROM eventstore.events WHERE (era, tx) >= ` + fence

	// holderSQL describes the oldest transaction with an id in the whole cluster: those of other databases and
	// prepared ones hold the fence too. It leaves out the text of queries, which may hold anything.
	holderSQL = `SELECT description FROM (
			SELECT backend_xid AS xid, format('pid %s (%s, user %s, database %s, %s) in a transaction since %s',
				pid, coalesce(nullif(application_name, ''), backend_type), usename, datname, state, xact_start) AS description
			FROM pg_stat_activity WHERE backend_xid IS NOT NULL
			UNION ALL
			SELECT transaction, format('prepared transaction %L (user %s, database %s) since %s', gid, owner, database, prepared)
			FROM pg_prepared_xacts
		) holders ORDER BY age(xid) DESC LIMIT 1`
)

// Fence tells how long the oldest event has been waiting that is recorded and that readers may not see yet, and who
// makes them wait: the oldest transaction anywhere in the Postgres cluster that has written something. Without such
// an event lag is 0 and holder empty. Some milliseconds are normal under load.
func (s *Store) Fence(ctx context.Context) (lag time.Duration, holder string, err error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var oldest pgtype.Timestamptz
	b := &pgx.Batch{}
	b.Queue(heldSQL).QueryRow(func(row pgx.Row) error { return row.Scan(&oldest) })
	b.Queue(holderSQL).Query(func(rows pgx.Rows) (err error) {
		for rows.Next() {
			err = rows.Scan(&holder)
		}
		return err
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return 0, "", fmt.Errorf("look at the fence: %w", unavailable(err))
	}
	if !oldest.Valid {
		return 0, "", nil
	}
	if holder == "" {
		holder = "a transaction that has ended since, or that this role may not see (pg_read_all_stats)"
	}
	return max(s.clock().Sub(oldest.Time), 0), holder, nil
}
