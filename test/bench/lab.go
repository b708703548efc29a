package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver"
)

// stopTime bounds the end of whatever a measurement started.
const stopTime = 30 * time.Second

// lab is a Postgres as `horcrux serve` starts it, in a folder of its own.
type lab struct {
	dir    string
	server *pgserver.Server
	pools  []*pgxpool.Pool
	log    *slog.Logger
}

// openLab starts a lab. Its folder lies below parent and goes with it.
func openLab(ctx context.Context, parent string, log *slog.Logger) (*lab, error) {
	dir, err := tempDir(parent)
	if err != nil {
		return nil, err
	}
	server, err := pgserver.Start(ctx, pgserver.Options{
		Dir: filepath.Join(dir, "postgres"), SocketDir: filepath.Join(dir, "run"), MaxConnections: 100, Logger: log,
	})
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &lab{dir: dir, server: server, log: log}, nil
}

// tempDir makes a folder that other OS users can pass through, as Postgres and QEMU have to.
func tempDir(parent string) (string, error) {
	dir, err := os.MkdirTemp(parent, "hxbench")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

func (l *lab) close() error {
	for _, p := range l.pools {
		p.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	return errors.Join(l.server.Stop(ctx), os.RemoveAll(l.dir))
}

// dsn is how libpq and pgx reach a database, which is made if it is missing.
func (l *lab) dsn(ctx context.Context, database string) (string, error) {
	return l.server.DSN(database), l.server.CreateDatabase(ctx, database)
}

// open connects to a database of its own with an event store in it.
func (l *lab) open(ctx context.Context, database string, connections int32) (*pgxpool.Pool, *postgres.Store, error) {
	dsn, err := l.dsn(ctx, database)
	if err != nil {
		return nil, nil, err
	}
	pool, err := postgres.Connect(ctx, dsn, connections)
	if err != nil {
		return nil, nil, err
	}
	l.pools = append(l.pools, pool)
	store, err := postgres.New(ctx, pool, postgres.Options{Logger: l.log})
	return pool, store, err
}

// connectAll returns when the pool has all its connections.
func connectAll(ctx context.Context, pool *pgxpool.Pool) error {
	var held []*pgxpool.Conn
	defer func() {
		for _, c := range held {
			c.Release()
		}
	}()
	for range pool.Config().MaxConns {
		c, err := pool.Acquire(ctx)
		if err != nil {
			return err
		}
		held = append(held, c)
	}
	return nil
}

// fsyncMode says what a commit of this server waits for, in its own words.
func fsyncMode(ctx context.Context, pool *pgxpool.Pool) (string, error) {
	var parts []string
	for _, name := range []string{"fsync", "synchronous_commit", "wal_sync_method"} {
		var value string
		if err := pool.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return "", fmt.Errorf("ask for %s: %w", name, err)
		}
		parts = append(parts, name+" "+value)
	}
	return strings.Join(parts, ", "), nil
}

// committer commits one row at a time, the yardstick of what else is durable.
type committer struct{ pool *pgxpool.Pool }

func newCommitter(ctx context.Context, pool *pgxpool.Pool) (committer, error) {
	_, err := pool.Exec(ctx, "CREATE TABLE IF NOT EXISTS bench_commit (n bigint NOT NULL, note text NOT NULL)")
	return committer{pool}, err
}

func (c committer) side() side {
	return side{name: "one-row insert, committed", unit: ms, run: func(ctx context.Context, turn int) (float64, error) {
		return millis(func() error {
			_, err := c.pool.Exec(ctx, "INSERT INTO bench_commit (n, note) VALUES ($1, $2)", turn, "one row")
			return err
		})
	}}
}
