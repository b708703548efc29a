// Package postgres keeps the event log in Postgres, where it is the truth. docs/adr/0002 says why each step is as it
// is, and what breaks without it.
package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/eventstore"
)

// Options are what a store needs to know. Zero fields have defaults.
type Options struct {
	Clock   func() time.Time // time.Now
	Logger  *slog.Logger     // slog.Default()
	Timeout time.Duration    // of a call whose context has no deadline; 15 s
}

// Store is an event store in the schema eventstore of a Postgres database.
type Store struct {
	pool      *pgxpool.Pool
	owned     bool // Close closes the pool
	clock     func() time.Time
	log       *slog.Logger
	timeout   time.Duration
	nudges    *eventstore.Nudges
	metrics   metrics
	unwritten atomic.Bool // the server answered the last append that it cannot write
}

var _ eventstore.Store = (*Store)(nil)

// Open connects to a database, brings its schema up to date and checks that its log can be continued there
// (ErrRestored). Close frees the connections.
func Open(ctx context.Context, dsn string, opts Options) (*Store, error) {
	pool, err := Connect(ctx, dsn, 0)
	if err != nil {
		return nil, fmt.Errorf("open event store: %w", err)
	}
	s, err := New(ctx, pool, opts)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.owned = true
	return s, nil
}

// settings of every connection. All statements here are point look-ups and short ranges of an index. A plan that
// Postgres makes while a table is empty is a sequential scan and stays one until the first ANALYZE, a minute and
// thousands of rows later; and planning anew for each LIMIT costs as much as the reading.
var settings = map[string]string{
	"application_name":              "horcrux",
	"default_transaction_isolation": "read committed",
	"enable_seqscan":                "off",
	"plan_cache_mode":               "force_generic_plan",
}

// Connect opens connections for a store and for what is kept beside it, at most so many; 0 leaves it to the DSN. The
// caller closes the pool.
func Connect(ctx context.Context, dsn string, connections int32) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	if connections > 0 {
		config.MaxConns = connections
	}
	for name, value := range settings {
		config.ConnConfig.RuntimeParams[name] = value
	}
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("database: %w", err)
	}
	return pool, nil
}

// New is Open on the connections of a pool, which it leaves open. Their default isolation level must be read
// committed.
func New(ctx context.Context, pool *pgxpool.Pool, opts Options) (*Store, error) {
	s := &Store{pool: pool, clock: opts.Clock, log: opts.Logger, timeout: opts.Timeout, nudges: eventstore.NewNudges(), metrics: newMetrics()}
	if s.clock == nil {
		s.clock = time.Now
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.timeout == 0 {
		s.timeout = 15 * time.Second
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := migrate(ctx, pool.Config().ConnConfig, s.log); err != nil {
		return nil, fmt.Errorf("migrate event store: %w", unavailable(err))
	}
	if err := checkEra(ctx, pool); err != nil {
		return nil, fmt.Errorf("open event store: %w", unavailable(err))
	}
	return s, nil
}

// Close frees the connections of a store that Open opened.
func (s *Store) Close() {
	if s.owned {
		s.pool.Close()
	}
}

// Nudged implements eventstore.Store.
func (s *Store) Nudged() <-chan struct{} { return s.nudges.Nudged() }

// bounded gives a context without a deadline one.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, s.timeout)
}
