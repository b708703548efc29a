//nolint:bodyclose // Decode closes the body of every answer
package client

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve answers on the socket of a data dir with one handler for each call, the last one for all that follow.
func serve(t *testing.T, answers ...http.HandlerFunc) (*Client, func() int) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hxclient") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, socketName))
	if err != nil {
		t.Fatal(err)
	}
	calls := make(chan int, 1)
	calls <- 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := <-calls
		calls <- n + 1
		answers[min(n, len(answers)-1)](w, r)
	}))
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c := at(t, Place{DataDir: dir})
	return c, func() int { n := <-calls; calls <- n; return n }
}

func at(t *testing.T, p Place) *Client {
	t.Helper()
	c, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	c.backoff = time.Millisecond
	c.Client.(*doer).backoff = time.Millisecond
	return c
}

// ask makes the simplest call.
func ask(t *testing.T, c *Client) error {
	t.Helper()
	_, err := Decode[openapi.Version](c.GetVersion(t.Context()))
	return err
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func hangUp(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }

const (
	version    = `{"version":"1","commit":"","go":"go1.26"}`
	inProgress = `{"type":"t","title":"t","status":409,"code":"idempotency_in_progress","detail":"d"}`
)

func TestProblemsAreErrors(t *testing.T) {
	c, calls := serve(t, answer(409, "application/problem+json",
		`{"type":"t","title":"t","status":409,"code":"invalid_state","detail":"it runs","operation":"0190e0a2-0000-7000-8000-000000000001","trace":"abc","fields":[{"field":"id","detail":"x"}]}`))
	_, err := Decode[openapi.Operation](c.StartVM(t.Context(), "web-1", nil))
	var e *Error
	if !errors.As(err, &e) || !errors.Is(err, &problem.Problem{Code: problem.InvalidState}) {
		t.Fatal(err)
	}
	if e.Detail != "it runs" || e.Trace != "abc" || e.Operation != "0190e0a2-0000-7000-8000-000000000001" || len(e.Fields) != 1 {
		t.Errorf("%+v of %+v", e, e.Problem)
	}
	if calls() != 1 {
		t.Errorf("a refused call was sent %d times", calls())
	}
}

func TestAnswersOfSomethingElse(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"an error page": answer(502, "text/html", "<h1>bad gateway</h1>"),
		"no JSON":       answer(200, "application/json", "hello"),
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := serve(t, h)
			if err := ask(t, c); !errors.Is(err, ErrNotHorcrux) {
				t.Error(err)
			}
		})
	}
}

func TestReadinessIsNotAnError(t *testing.T) {
	c, _ := serve(t, answer(503, "application/json", `{"ready":false,"dependencies":[{"name":"libvirt","ready":false,"detail":"gone"}]}`))
	r, err := Decode[openapi.Readiness](c.GetReadiness(t.Context()))
	if err != nil || r.Ready || len(r.Dependencies) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A change whose connection breaks is sent again under the same key with the same body.
func TestRetryAfterABreak(t *testing.T) {
	var mu sync.Mutex
	var keys, bodies []string
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			keys, bodies = append(keys, r.Header.Get("Idempotency-Key")), append(bodies, string(body))
			next(w, r)
		}
	}
	c, calls := serve(t, note(hangUp), note(answer(409, "application/problem+json", inProgress)), note(answer(202, "application/json", `{"state":"queued"}`)))
	op, err := Decode[openapi.Operation](c.CreateVM(t.Context(), nil, openapi.VMCreate{Name: "web-1"}))
	if err != nil || op.State != "queued" {
		t.Fatal(op, err)
	}
	if calls() != 3 || keys[0] == "" || keys[0] != keys[1] || keys[1] != keys[2] || bodies[0] != bodies[2] || bodies[0] == "" {
		t.Errorf("%d calls with keys %v and bodies %v", calls(), keys, bodies)
	}
}

func TestRetriesEnd(t *testing.T) {
	c, calls := serve(t, hangUp)
	err := ask(t, c)
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) || calls() != attempts {
		t.Errorf("after %d calls: %v", calls(), err)
	}
}

func TestNobodyThereIsToldAtOnce(t *testing.T) {
	c := at(t, Place{DataDir: t.TempDir()})
	c.Client.(*doer).backoff = time.Hour
	err := ask(t, c)
	var unreachable *UnreachableError
	if !errors.As(err, &unreachable) {
		t.Error(err)
	}
}

func TestDeadline(t *testing.T) {
	for query, want := range map[string]time.Duration{"": callTimeout, "wait=60": callTimeout + time.Minute, "wait=x": callTimeout} {
		if got := timeout(httptest.NewRequest(http.MethodPost, "/api/vms?"+query, nil)); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestTLSWithTheInstallationsAuthority(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer hx_secret" {
			w.WriteHeader(http.StatusUnauthorized)
		}
		answer(200, "application/json", version)(w, r)
	}))
	defer s.Close()
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(filepath.Join(dir, caFile), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("OK", func(t *testing.T) {
		if err := ask(t, at(t, Place{URL: s.URL, Token: "hx_secret", DataDir: dir})); err != nil {
			t.Error(err)
		}
	})
	t.Run("unknown authority", func(t *testing.T) {
		s.Config.ErrorLog = nil
		err := ask(t, at(t, Place{URL: s.URL, Token: "hx_secret", DataDir: t.TempDir()}))
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) {
			t.Error(err)
		}
	})
}

func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	env := map[string]string{}
	find := func() (Place, error) { return Find(func(k string) string { return env[k] }) }
	if _, err := os.Stat(filepath.Join(dataDirs[1], socketName)); err != nil {
		if _, err := find(); !errors.Is(err, ErrNoServer) {
			t.Errorf("nothing there: %v", err)
		}
	}
	if err := os.Mkdir(".horcrux", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(".horcrux/api.sock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		key, value, where, token string
	}{
		{"HORCRUX_TOKEN", "hx_1", ".horcrux/api.sock", ""},
		{"HORCRUX_DATA_DIR", "/srv/hx", "/srv/hx/api.sock", ""},
		{"HORCRUX_URL", "https://[::1]:8006", "https://[::1]:8006", "hx_1"},
	} {
		env[step.key] = step.value
		if p, err := find(); err != nil || p.String() != step.where || p.Token != step.token {
			t.Errorf("with %s: %+v, %v", step.key, p, err)
		}
	}
	if _, err := New(Place{URL: "host:8006"}); err == nil {
		t.Error("a URL without scheme was taken")
	}
}

func TestWait(t *testing.T) {
	c, calls := serve(t, answer(200, "application/json", `{"state":"running","progress":50}`), answer(200, "application/json", `{"state":"failed"}`))
	var seen []string
	op, err := c.Wait(t.Context(), uuid.New(), func(op openapi.Operation) { seen = append(seen, string(op.State)) })
	if err != nil || op.State != "failed" || calls() != 2 || fmt.Sprint(seen) != "[running failed]" {
		t.Errorf("%v after %d calls, seen %v: %v", op.State, calls(), seen, err)
	}
}

func stream(messages ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, m := range messages {
			_, _ = io.WriteString(w, m)
		}
		w.(http.Flusher).Flush()
	}
}

func message(n int) string {
	return fmt.Sprintf("id: AQIC\nevent: vm.started\ndata: {\"id\":\"%s\",\"stream\":\"vm/x\",\ndata: \"version\":%d,\"type\":\"vm.started\",\"schema\":1,\"data\":{},\"meta\":{},\"at\":\"2026-01-01T00:00:00Z\",\"position\":\"AAEB\"}\n\n", uuid.New(), n)
}

func TestFollow(t *testing.T) {
	done := errors.New("done")
	var mu sync.Mutex
	var asked []string
	note := func(next http.HandlerFunc) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			asked = append(asked, r.URL.Query().Get("after"))
			mu.Unlock()
			next(w, r)
		}
	}
	c, _ := serve(t, note(stream(": hello\n\n", message(1))), note(hangUp), note(stream(message(2), "data: {\"half")), note(stream(message(3))))
	var versions []int64
	err := c.Follow(t.Context(), openapi.ListEventsParams{}, func(e openapi.Event) error {
		if versions = append(versions, e.Version); e.Version == 3 {
			return done
		}
		return nil
	})
	if !errors.Is(err, done) || fmt.Sprint(versions) != "[1 2 3]" {
		t.Errorf("%v: %v", versions, err)
	}
	mu.Lock()
	defer mu.Unlock()
	if asked[0] != "" || asked[1] != "AAEB" {
		t.Errorf("asked after %v", asked)
	}
}

func TestFollowEnds(t *testing.T) {
	t.Run("with its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, _ := serve(t, stream(message(1)))
		err := c.Follow(ctx, openapi.ListEventsParams{}, func(openapi.Event) error { cancel(); return nil })
		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("with a problem", func(t *testing.T) {
		c, _ := serve(t, answer(410, "application/problem+json", `{"type":"t","title":"t","status":410,"code":"position_gone","detail":"d"}`))
		if err := c.Follow(t.Context(), openapi.ListEventsParams{}, nil); !errors.Is(err, &problem.Problem{Code: problem.PositionGone}) {
			t.Error(err)
		}
	})
	t.Run("when a quiet server stays quiet", func(t *testing.T) {
		c, calls := serve(t, func(w http.ResponseWriter, r *http.Request) {
			stream(": nothing\n")(w, r)
			<-r.Context().Done()
		})
		c.silence = 10 * time.Millisecond
		err := c.Follow(t.Context(), openapi.ListEventsParams{}, nil)
		var unreachable *UnreachableError
		if !errors.As(err, &unreachable) || calls() != attempts {
			t.Errorf("after %d calls: %v", calls(), err)
		}
	})
}
