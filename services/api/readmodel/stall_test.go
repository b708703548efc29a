package readmodel_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/services/api/readmodel"
)

// hung is a log that does not answer while it is hung. It holds every read to a deadline.
type hung struct {
	eventstore.Reader
	t    *testing.T
	hung bool
}

func (h *hung) Read(ctx context.Context, after events.Position, o eventstore.ReadOptions) (eventstore.Page, error) {
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > 30*time.Second {
		h.t.Errorf("the read ends at %v, want within 30 s", end)
	}
	if h.hung {
		return eventstore.Page{}, context.DeadlineExceeded
	}
	return h.Reader.Read(ctx, after, o)
}

func TestStalled(t *testing.T) {
	w := newWorld(t)
	log, now := &hung{Reader: w.store, t: t}, time.Now()
	m, err := readmodel.Open(t.Context(), readmodel.Options{
		Pool: w.pool, Reader: log, Resources: []*events.Resource{widgets("widget")}, Log: slog.New(slog.DiscardHandler),
		Clock: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	stalled := func(want time.Duration) {
		t.Helper()
		for _, s := range m.Status() {
			if s.Stalled != want {
				t.Errorf("%s is stalled for %s, want %s", s.Kind, s.Stalled, want)
			}
			if s.Lag < want {
				t.Errorf("%s is behind by %s, and stalled for %s", s.Kind, s.Lag, want)
			}
		}
	}
	w.make("widget", "a", 1)
	log.hung = true
	for range 2 {
		now = now.Add(7 * time.Second)
		if _, err := m.RunOnce(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
	stalled(14 * time.Second)
	log.hung = false
	if err := m.RunToEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	stalled(0)
	now = now.Add(time.Second)
	stalled(time.Second)
	if _, err := m.RunOnce(t.Context()); err != nil { // with nothing to do
		t.Fatal(err)
	}
	stalled(0)
	t.Run("ByTheDatabase", func(t *testing.T) {
		w.make("widget", "b", 1)
		conn, err := w.pool.Acquire(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Release()
		tx, err := conn.Begin(t.Context()) // keeps the table to itself
		if err == nil {
			_, err = tx.Exec(t.Context(), `LOCK TABLE api.projections IN ACCESS EXCLUSIVE MODE`)
		}
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(11 * time.Second)
		impatient, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if _, err := m.RunOnce(impatient); err == nil {
			t.Error("a round came to its end without the database")
		}
		stalled(11 * time.Second)
		if err := tx.Rollback(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.RunToEnd(t.Context()); err != nil {
			t.Fatal(err)
		}
		stalled(0)
	})
}
