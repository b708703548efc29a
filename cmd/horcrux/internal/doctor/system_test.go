package doctor

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"horcrux/cmd/horcrux/internal/datadir"
)

func TestDataDir(t *testing.T) {
	see := func(h *host) Finding { return dataDir(t.Context(), h) }
	t.Run("not there yet", func(t *testing.T) {
		h := bench(t)
		wants(t, see(h), OK, h.DataDir, "first start")
		if _, err := os.Stat(h.DataDir); err == nil {
			t.Error("it was made")
		}
	})
	t.Run("a file", func(t *testing.T) {
		h := bench(t)
		put(t, h.DataDir, "", 0o644)
		wants(t, see(h), Fail, "not a folder", "--data-dir")
	})
	t.Run("closed", func(t *testing.T) {
		if os.Geteuid() == 0 {
			t.Skip("nothing is closed to root; test/system looks as somebody else")
		}
		h := bench(t)
		if err := os.Mkdir(h.DataDir, 0); err != nil {
			t.Fatal(err)
		}
		wants(t, see(h), Warn, "not looked at", "sudo horcrux doctor")
	})
	t.Run("in use", func(t *testing.T) {
		h := bench(t)
		d, err := datadir.Open(h.DataDir)
		if err != nil {
			t.Fatal(err)
		}
		wants(t, see(h), OK, "in use by the server of pid")
		found := h.server(t.Context())
		if len(found) != 1 {
			t.Fatalf("%+v", found)
		}
		wants(t, found[0], Fail, "does not answer", "kill")
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		wants(t, see(h), OK)
		wants(t, h.server(t.Context())[0], OK, "none runs")
	})
}

func TestClockBehindTheLastStart(t *testing.T) {
	h := bench(t)
	if err := os.Mkdir(h.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(h.DataDir, "lock")
	put(t, lock, "", 0o600)
	if f := clock(t.Context(), h); f.Status == Fail {
		t.Errorf("%+v", f)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(lock, later, later); err != nil {
		t.Fatal(err)
	}
	wants(t, clock(t.Context(), h), Fail, "behind the last start", "chrony")
}

func TestImageDirs(t *testing.T) {
	h := bench(t, "--image-dirs", "/nonexistent")
	wants(t, imageDirs(t.Context(), h), Fail, "/nonexistent is not there", "mkdir -p /nonexistent")
	h = bench(t, "--image-dirs", "/etc/passwd")
	wants(t, imageDirs(t.Context(), h), Fail, "not a folder")
	h = bench(t, "--image-dirs", os.TempDir())
	wants(t, imageDirs(t.Context(), h), OK, os.TempDir())
}

// answer is a server behind the socket of a data dir.
func (h *host) answer(t *testing.T, version, readiness string) {
	t.Helper()
	d, err := datadir.Open(h.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	mux := http.NewServeMux()
	mux.HandleFunc("/api/version", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(version)) })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(readiness))
	})
	serveUnix(t, d.APISocket(), mux)
}

func TestServerThatIsNotReady(t *testing.T) {
	h := bench(t)
	h.answer(t, `{"version":"1.2.2"}`, `{"ready":false,"dependencies":[{"name":"nats","ready":true,"detail":""},{"name":"postgres","ready":false,"detail":"it is down"}]}`)
	found := h.server(t.Context())
	if len(found) != 3 || found[1].Name != "server nats" || found[2].Name != "server postgres" {
		t.Fatalf("%+v", found)
	}
	wants(t, found[0], Warn, "1.2.2", "1.2.3", "horcrux serve")
	wants(t, found[1], OK)
	wants(t, found[2], Fail, "it is down")

	h = bench(t)
	h.answer(t, `{"code":"unauthenticated"}`, "<html>")
	found = h.server(t.Context())
	wants(t, found[0], OK, "not told")
	wants(t, found[1], Fail, "/readyz")
}
