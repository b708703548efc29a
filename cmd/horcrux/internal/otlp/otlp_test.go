package otlp

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"horcrux/pkg/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestURL(t *testing.T) {
	for _, c := range []struct{ endpoint, traces, want string }{
		{"", "", ""},
		{"http://o:4318", "", "http://o:4318/v1/traces"},
		{"http://o:4318/", "", "http://o:4318/v1/traces"},
		{"https://o/otlp", "", "https://o/otlp/v1/traces"},
		{"http://o:4318", "http://t/in", "http://t/in"},
		{"", "http://t/in", "http://t/in"},
	} {
		if got, err := URL(c.endpoint, c.traces); got != c.want || err != nil {
			t.Errorf("%q and %q: %q %v", c.endpoint, c.traces, got, err)
		}
	}
}

// text keeps a log.
type text struct {
	mu sync.Mutex
	strings.Builder
}

func (t *text) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Builder.Write(p)
}

func (t *text) count(s string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Count(t.String(), s)
}

func start(t *testing.T, to http.HandlerFunc) (*Exporter, *text) {
	t.Helper()
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	s := httptest.NewServer(to)
	t.Cleanup(s.Close)
	log := &text{}
	x, err := Start(t.Context(), Options{URL: s.URL, Version: "v", Node: "n", Name: "h", Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	trace.Record(x.Provider())
	t.Cleanup(func() { trace.Record(nil) })
	return x, log
}

// spans makes some.
func spans(t *testing.T, n int) {
	for range n {
		_, s := trace.Begin(t.Context(), "", "x")
		s.Done("ok")
	}
}

// counts are the spans by outcome.
func counts(t *testing.T, x *Exporter) map[string]int {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(x)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, m := range families[0].Metric {
		got[m.Label[0].GetValue()] = int(m.GetCounter().GetValue())
	}
	return got
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestStopFlushes(t *testing.T) {
	var bytes atomic.Int64
	x, _ := start(t, func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		bytes.Add(n)
	})
	spans(t, 1000)
	x.Stop(t.Context())
	if got := counts(t, x); got["exported"] != 1000 || bytes.Load() == 0 {
		t.Errorf("%v in %d bytes", got, bytes.Load())
	}
}

// TestSilence: who makes spans does not wait, what there is no room for is counted, and the end comes.
func TestSilence(t *testing.T) {
	x, log := start(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	const n = queueSize + 500
	spans(t, n)
	if got := counts(t, x); got["dropped"] != 500 {
		t.Errorf("%v of %d", got, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	x.Stop(ctx)
	if ctx.Err() != nil {
		t.Error("it does not end")
	}
	if got := counts(t, x); got["exported"] != 0 || got["failed"] != queueSize || got["dropped"] != 500 {
		t.Errorf("%v of %d", got, n)
	}
	if said := log.count("spans are not delivered"); said != 1 {
		t.Errorf("the log says it %d times", said)
	}
}

func TestRefusal(t *testing.T) {
	var takes atomic.Bool
	x, log := start(t, func(w http.ResponseWriter, r *http.Request) {
		if _, _ = io.Copy(io.Discard, r.Body); !takes.Load() {
			http.Error(w, "no", http.StatusForbidden)
		}
	})
	defer x.Stop(t.Context())
	for i := range 3 {
		spans(t, 1)
		eventually(t, "no span fails", func() bool { return counts(t, x)["failed"] == i+1 })
	}
	takes.Store(true)
	spans(t, 1)
	eventually(t, "no span is taken", func() bool { return log.count("delivered again") == 1 })
	if n := log.count("are not delivered"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
}
