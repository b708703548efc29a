package postgres_test

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver/pgtest"
)

func wantIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("got error %v, want %v", err, want)
	}
}

func TestOutage(t *testing.T) {
	server := pgtest.Server(t)
	s := open(t, server.DSN(), postgres.Options{Timeout: 2 * time.Second})
	stream := newStream()
	add(t, s, stream, "vm.created")
	server.Stop()

	calls := map[string]func() error{
		"append": func() error {
			_, err := s.Append(t.Context(), drafted(newStream(), eventstore.Head{}, "vm.created"))
			return err
		},
		"load":      func() error { _, err := s.Load(t.Context(), stream); return err },
		"read":      func() error { _, err := s.Read(t.Context(), events.Position{}, eventstore.ReadOptions{}); return err },
		"end":       func() error { _, err := s.End(t.Context()); return err },
		"outcome":   func() error { _, err := s.Outcome(t.Context(), uuid.New()); return err },
		"lookup":    func() error { _, err := s.Lookup(t.Context(), eventstore.Name{Scope: "vm", Value: "a"}); return err },
		"open":      func() error { _, err := s.Open(t.Context(), "compute/a"); return err },
		"request":   func() error { _, err := s.Request(t.Context(), "a", "k"); return err },
		"due":       func() error { _, err := s.Due(t.Context(), time.Now(), 1); return err },
		"published": func() error { return s.Published(t.Context(), uuid.New(), time.Now()) },
		"park":      func() error { return s.Park(t.Context(), uuid.New()) },
		"unpark":    func() error { return s.Unpark(t.Context(), uuid.New()) },
		"fence":     func() error { _, _, err := s.Fence(t.Context()); return err },
		"verify":    func() error { _, err := s.Verify(t.Context(), nil); return err },
		"lead":      func() error { _, _, err := s.Lead(t.Context(), "relay"); return err },
		"ready":     func() error { return s.Ready(t.Context()) },
		"locked": func() error {
			_, err := s.Locked(t.Context(), uuid.New(), []events.Stream{stream}, func([]eventstore.History) (eventstore.Append, error) {
				return eventstore.Append{}, nil
			})
			return err
		},
		"open the store": func() error {
			_, err := postgres.Open(t.Context(), server.DSN(), postgres.Options{Timeout: 2 * time.Second})
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) { wantIs(t, call(), eventstore.ErrUnavailable) })
	}

	server.Start()
	heal(t, func() error { _, err := s.Load(t.Context(), stream); return err })
	wantTypes(t, s, events.Position{}, "vm.created")
}

// A database that answers and takes nothing is not ready, from the append on that it refused until it takes something.
func TestUnwritable(t *testing.T) {
	server := pgtest.Server(t)
	s, admin := open(t, server.DSN(), postgres.Options{}), connect(t, server.DSN())
	record := func() error {
		_, err := s.Append(t.Context(), drafted(newStream(), eventstore.Head{}, "vm.created"))
		return err
	}
	readOnly := func(setting string) {
		exec(t, admin, "ALTER SYSTEM SET default_transaction_read_only = "+setting)
		exec(t, admin, "SELECT pg_reload_conf()")
	}
	for _, end := range []struct {
		name string
		call func() error
	}{
		{"until it could write", func() error { return s.Ready(t.Context()) }},
		{"until an append", record},
	} {
		t.Run(end.name, func(t *testing.T) {
			if err := errors.Join(record(), s.Ready(t.Context())); err != nil {
				t.Fatal(err)
			}
			readOnly("on")
			for deadline := time.Now().Add(20 * time.Second); record() == nil; { // the server reads its settings some time
				if time.Now().After(deadline) {
					t.Fatal("the database can be written")
				}
			}
			for range 2 {
				wantIs(t, s.Ready(t.Context()), eventstore.ErrUnavailable)
			}
			exec(t, admin, "SET default_transaction_read_only = off")
			readOnly("off")
			heal(t, end.call)
			if err := s.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	if n := scan[int](t, admin, "SELECT count(*) FROM pg_class WHERE relname = 'room'"); n > 0 {
		t.Errorf("%d tables are left", n)
	}
}

// heal calls until the store is available again.
func heal(t *testing.T, call func() error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := call()
		if err == nil {
			return
		}
		if !errors.Is(err, eventstore.ErrUnavailable) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// What was acknowledged survives a kill -9 of Postgres; what was not is repeated under its command, and happens once.
func TestKilledPostgresLosesNothing(t *testing.T) {
	server := pgtest.Server(t)
	s := open(t, server.DSN(), postgres.Options{})
	stream := newStream()
	const appends = 40
	for i := range appends {
		command := uuid.New()
		if i == appends/2 {
			if err := syscall.Kill(server.Pid(), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
		heal(t, func() error {
			_, err := eventstore.Run(t.Context(), s, command, []events.Stream{stream}, func(hs []eventstore.History) (eventstore.Append, error) {
				return drafted(stream, hs[0].Head, "vm.started"), nil
			})
			return err
		})
	}
	h, err := s.Load(t.Context(), stream)
	if err != nil || h[0].Head.Version != appends {
		t.Errorf("version %d, %v; want %d", h[0].Head.Version, err, appends)
	}
	if r, err := s.Verify(t.Context(), nil); err != nil || len(r.Findings) != 0 {
		t.Errorf("verify: %v, %v", r.Findings, err)
	}
}

// A call without a deadline gets one.
func TestDeadline(t *testing.T) {
	dsn := pgtest.Database(t)
	s := open(t, dsn, postgres.Options{})
	impatient := open(t, dsn, postgres.Options{Timeout: 100 * time.Millisecond})
	stream, holder := newStream(), connect(t, dsn)
	add(t, s, stream, "vm.created")
	exec(t, holder, "BEGIN")
	exec(t, holder, "SELECT eventstore.lock(NULL, ARRAY[$1::text])", string(stream))

	h, err := s.Load(t.Context(), stream)
	if err != nil {
		t.Fatal(err)
	}
	_, err = impatient.Append(t.Context(), drafted(stream, h[0].Head, "vm.started"))
	wantIs(t, err, eventstore.ErrUnavailable)
	_, err = impatient.Locked(t.Context(), uuid.New(), []events.Stream{stream}, func([]eventstore.History) (eventstore.Append, error) {
		return eventstore.Append{}, nil
	})
	wantIs(t, err, eventstore.ErrUnavailable)

	exec(t, holder, "ROLLBACK")
	heal(t, func() error { _, err := impatient.Load(t.Context(), stream); return err })
	add(t, s, stream, "vm.started")
}

func TestLead(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	dsn := pgtest.Database(t)
	a, b := open(t, dsn, postgres.Options{}), open(t, dsn, postgres.Options{})
	defer a.Close()
	defer b.Close()
	lead, release, err := a.Lead(t.Context(), "relay")
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	t.Run("another name is free", func(t *testing.T) {
		_, release, err := b.Lead(t.Context(), "sweeper")
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
	t.Run("one leads", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := b.Lead(ctx, "relay")
		wantIs(t, err, context.DeadlineExceeded)
		if lead.Err() != nil {
			t.Errorf("the leader lost it: %v", context.Cause(lead))
		}
	})
	t.Run("a lost session ends it and lets another lead", func(t *testing.T) {
		conn := connect(t, dsn)
		if n := scan[int](t, conn, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
			WHERE application_name = 'horcrux lead relay' AND datname = current_database()`); n == 0 {
			t.Fatal("no session of the leader's")
		}
		other, release, err := b.Lead(t.Context(), "relay")
		if err != nil {
			t.Fatal(err)
		}
		defer release()
		select {
		case <-lead.Done():
			wantIs(t, context.Cause(lead), postgres.ErrLeadershipLost)
		case <-time.After(20 * time.Second):
			t.Error("the old leader did not notice")
		}
		if other.Err() != nil {
			t.Error("the new leader lost it")
		}
	})
	t.Run("released, the next leads", func(t *testing.T) {
		mine, release, err := a.Lead(t.Context(), "relay")
		if err != nil {
			t.Fatal(err)
		}
		release()
		release()
		if mine.Err() == nil {
			t.Error("still leading after release")
		}
		_, release, err = b.Lead(t.Context(), "relay")
		if err != nil {
			t.Fatal(err)
		}
		release()
	})
}
