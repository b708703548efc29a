package rest

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/access"
	"horcrux/services/api/readmodel"
)

// bounded complains of a call that could go on for longer than the limit.
func bounded(ctx context.Context, limit time.Duration) error {
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > limit {
		return fmt.Errorf("the context ends at %v, want within %v", end, limit)
	}
	return nil
}

// hung is an event store that does not answer, and says who would wait for it for ever.
type hung struct {
	eventstore.Reader
	t *testing.T
}

func (h hung) Load(ctx context.Context, _ ...events.Stream) ([]eventstore.History, error) {
	if err := bounded(ctx, answerTime); err != nil {
		h.t.Errorf("load: %v", err)
	}
	return nil, fmt.Errorf("load: %w", context.DeadlineExceeded)
}

func (h hung) Read(ctx context.Context, _ events.Position, _ eventstore.ReadOptions) (eventstore.Page, error) {
	if err := bounded(ctx, answerTime); err != nil {
		h.t.Errorf("read: %v", err)
	}
	return eventstore.Page{}, fmt.Errorf("read: %w", context.DeadlineExceeded)
}

// TestEveryCallEnds: nothing that a request waits for is waited for without end, whatever the caller wants to have.
func TestEveryCallEnds(t *testing.T) {
	t.Run("WhoCalls", func(t *testing.T) {
		w := newWorld(t, func(o *Options) {
			o.Authenticate = func(r *http.Request) (access.Caller, error) {
				if err := bounded(r.Context(), authTime); err != nil {
					t.Error(err)
				}
				return access.Caller{}, fmt.Errorf("look up token: %w", context.DeadlineExceeded)
			}
		})
		w.get("/api/vms").problem(problem.Unavailable)
		w.call("GET", "/api/events", "", header{"Accept": "text/event-stream"}).problem(problem.Unavailable)
		w.get("/healthz").is(200)
	})
	t.Run("TheAnswer", func(t *testing.T) {
		w := newWorld(t, func(o *Options) { o.Store = hung{o.Store, t} })
		for _, accept := range []string{"application/json", "text/event-stream"} {
			for _, path := range []string{"/api/vms/" + events.NewID().String() + "/history", "/api/events"} {
				w.call("GET", path, "", header{"Accept": accept}).problem(problem.Unavailable)
			}
		}
	})
}

// TestStalledProjection: a read model that gets nowhere is told, and told no more when it does.
func TestStalledProjection(t *testing.T) {
	var model *readmodel.Model
	now := time.Now()
	w := newWorld(t, func(o *Options) {
		var err error
		model, err = readmodel.Open(t.Context(), readmodel.Options{
			Pool: o.Model.Pool, Reader: o.Store, Resources: o.Resources[:1], Log: o.Log, Clock: func() time.Time { return now },
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Model = model
	})
	w.get("/readyz").is(200)
	now = now.Add(stallTime)
	w.get("/readyz").is(200)
	now = now.Add(time.Second)
	r := into[openapi.Readiness](w.get("/readyz").is(503))
	if d := r.Dependencies[0]; d.Name != "projection/vm" || d.Ready || !strings.Contains(d.Detail, "for 11s") {
		t.Errorf("%+v", d)
	}
	if err := model.RunToEnd(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.get("/readyz").is(200)
}
