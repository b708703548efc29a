package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// ErrLeadershipLost is the cause of a leader's context that ended because its session did.
var ErrLeadershipLost = errors.New("leadership lost")

const (
	leadRetry = 500 * time.Millisecond // between two tries to become the leader
	leadCheck = 2 * time.Second        // between two looks whether the session lives; also the deadline of one
)

// Lead waits until this process leads under a name, among all that use this database, and returns a context that
// ends when ctx does, when release is called, or, with the cause ErrLeadershipLost, when the leadership is lost.
// Another may lead already by the time that a loss is noticed: what a leader does must be fenced by itself.
// release gives the leadership back and has to be called.
//
// It holds a connection of its own. It tries again and again, since a statement that waits for a lock would hold
// back vacuum for as long.
func (s *Store) Lead(ctx context.Context, name string) (lead context.Context, release func(), err error) {
	conn, err := s.leadConn(ctx, name)
	if err != nil {
		return nil, nil, fmt.Errorf("lead %s: %w", name, unavailable(err))
	}
	retry := time.NewTicker(leadRetry)
	defer retry.Stop()
	for {
		var got bool
		err := within(ctx, s.timeout, func(ctx context.Context) error {
			return conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1, hashtext($2))`, lockSpace, name).Scan(&got)
		})
		if err == nil && got {
			break
		}
		if err == nil {
			select {
			case <-retry.C:
				continue
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
		}
		return nil, nil, errors.Join(fmt.Errorf("lead %s: %w", name, unavailable(err)), s.hangUp(ctx, conn))
	}

	lead, cancel := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watch(lead, cancel, conn)
	}()
	return lead, sync.OnceFunc(func() {
		cancel(context.Canceled)
		<-watched
	}), nil
}

// watch owns the leader's connection: it cancels when the session ends, and ends the session when the leadership is
// given back.
func (s *Store) watch(lead context.Context, cancel context.CancelCauseFunc, conn *pgx.Conn) {
	check := time.NewTicker(leadCheck)
	defer check.Stop()
	for {
		select {
		case <-lead.Done():
			if err := s.hangUp(lead, conn); err != nil {
				s.log.WarnContext(lead, "give leadership back", "error", err)
			}
			return
		case <-check.C:
		}
		// Not within lead: its end must leave the connection whole, so that the session ends in order.
		if err := within(context.WithoutCancel(lead), leadCheck, conn.Ping); err != nil {
			cancel(fmt.Errorf("%w: %w", ErrLeadershipLost, err))
		}
	}
}

func (s *Store) leadConn(ctx context.Context, name string) (conn *pgx.Conn, err error) {
	config := s.pool.Config().ConnConfig
	config.RuntimeParams["application_name"] = "horcrux lead " + name
	err = within(ctx, s.timeout, func(ctx context.Context) error {
		conn, err = pgx.ConnectConfig(ctx, config)
		return err
	})
	return conn, err
}

// hangUp ends a session, whose locks end with it.
func (s *Store) hangUp(ctx context.Context, conn *pgx.Conn) error {
	return within(context.WithoutCancel(ctx), leadCheck, conn.Close)
}

// within gives a call a deadline.
func within(ctx context.Context, d time.Duration, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	return call(ctx)
}
