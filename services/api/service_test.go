package api_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/openapi"
	"horcrux/pkg/pgserver/pgtest"
	api "horcrux/services/api"
)

type exit func() int

func (e exit) Run() int { return e() }

func TestMain(m *testing.M) { goleak.VerifyTestMain(exit(func() int { return pgtest.Run(m) })) }

// nobody decides nothing.
type nobody struct{ api.Bus }

func (nobody) Ask(context.Context, events.Command) (bus.Decision, error) {
	return bus.Decision{}, bus.ErrNoDecision
}

func (nobody) Ending(uuid.UUID) (<-chan []events.Event, func()) { return nil, func() {} }

func (nobody) LastEnd() events.Position { return events.Position{} }

func options(t *testing.T, dir string) api.Options {
	pool, err := pgxpool.New(t.Context(), pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	store := memory.New(nil)
	return api.Options{
		Store: store, Bus: nobody{}, Wake: store.Nudged(), Pool: pool, DataDir: dir, Socket: filepath.Join(dir, "api.sock"),
		Listen: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler), Features: []openapi.Feature{{Name: "qemu", Built: true}},
		Node: func(context.Context, string) (uuid.UUID, error) { return uuid.Nil, errors.ErrUnsupported },
	}
}

// start runs a service until the test ends and returns what stops it earlier.
func start(t *testing.T, o api.Options) (s *api.Service, stop func()) {
	t.Helper()
	s, err := api.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
	t.Cleanup(stop)
	return s, stop
}

// shortDir is a folder whose path leaves room for a socket's name.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func overSocket(t *testing.T, dir string) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "api.sock"))
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func overTLS(t *testing.T, dir string) *http.Client {
	ca, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func get(t *testing.T, c *http.Client, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestAccess(t *testing.T) {
	dir := shortDir(t)
	o := options(t, dir)
	s, _ := start(t, o)
	url := s.Addresses()[1]
	socket, remote := overSocket(t, dir), overTLS(t, dir)
	file, err := os.ReadFile(s.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(file))
	t.Run("TokenFile", func(t *testing.T) {
		info, err := os.Stat(s.TokenFile())
		if err != nil || info.Mode().Perm() != 0o600 || len(token) != 46 || !strings.HasPrefix(token, "hx_") {
			t.Errorf("%v %v %d characters", info.Mode(), err, len(token))
		}
	})
	t.Run("TokenIsStoredHashed", func(t *testing.T) {
		if code, _ := get(t, remote, url+"/api/version", token); code != 200 {
			t.Errorf("status %d", code)
		}
		var rows string
		if err := o.Pool.QueryRow(t.Context(), `SELECT string_agg(t::text, ' ') FROM api.tokens t`).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(rows, "admin") || strings.Contains(rows, token) {
			t.Errorf("%s", rows)
		}
	})
	for name, bad := range map[string]string{"None": "", "Unknown": "hx_" + strings.Repeat("A", 43), "Malformed": "hx_'; DROP TABLE api.tokens; --"} {
		t.Run("Refused/"+name, func(t *testing.T) {
			if code, body := get(t, remote, url+"/api/vms", bad); code != 401 || !strings.Contains(body, "unauthenticated") {
				t.Errorf("%d %s", code, body)
			}
			if code, _ := get(t, remote, url+"/healthz", bad); code != 200 {
				t.Errorf("healthz: %d", code)
			}
		})
	}
	t.Run("SocketOfRootOrService", func(t *testing.T) {
		if code, body := get(t, socket, "http://localhost/api/vms", ""); code != 200 {
			t.Errorf("%d %s", code, body)
		}
	})
	t.Run("SocketOfAnotherUser", func(t *testing.T) {
		curl, err := exec.LookPath("curl")
		if err != nil || os.Geteuid() != 0 {
			t.Skip("needs root and curl")
		}
		cmd := exec.CommandContext(t.Context(), curl, "-s", "--unix-socket", filepath.Join(dir, "api.sock"), "http://localhost/api/vms")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		var p struct{ Code string }
		if err != nil || json.Unmarshal(out, &p) != nil || p.Code != "forbidden" {
			t.Errorf("%s (%v)", out, err)
		}
	})
}

func TestRestart(t *testing.T) {
	dir := shortDir(t)
	o := options(t, dir)
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	s, stop := start(t, o)
	token, ca := read("admin.token"), read("ca.pem")
	stop()
	if _, err := os.Stat(filepath.Join(dir, "api.sock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
	t.Run("KeepsTokenAndCA", func(t *testing.T) {
		_, stop := start(t, o)
		defer stop()
		if read("admin.token") != token || read("ca.pem") != ca {
			t.Error("token or CA changed")
		}
	})
	t.Run("NewTokenVoidsTheOld", func(t *testing.T) {
		if err := os.Remove(s.TokenFile()); err != nil {
			t.Fatal(err)
		}
		s, stop := start(t, o)
		defer stop()
		client := overTLS(t, dir)
		if code, _ := get(t, client, s.Addresses()[1]+"/api/vms", strings.TrimSpace(token)); code != 401 {
			t.Errorf("the old token: %d", code)
		}
		if code, _ := get(t, client, s.Addresses()[1]+"/api/vms", strings.TrimSpace(read("admin.token"))); code != 200 {
			t.Errorf("the new token: %d", code)
		}
	})
	t.Run("SocketOfADeadProcess", func(t *testing.T) {
		l, err := net.Listen("unix", filepath.Join(dir, "api.sock"))
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		l.Close()
		_, stop := start(t, o)
		stop()
	})
}

func TestTaken(t *testing.T) {
	t.Run("Port", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		o := options(t, shortDir(t))
		o.Listen = l.Addr().String()
		_, port, _ := net.SplitHostPort(o.Listen)
		if _, err := api.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), port) || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("%v, want the port and --listen", err)
		}
	})
	t.Run("Socket", func(t *testing.T) {
		dir := shortDir(t)
		o := options(t, dir)
		start(t, o)
		if _, err := api.New(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Errorf("%v", err)
		}
	})
}
