package doctor

import (
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"horcrux/services/api/listen"
)

// serve answers on a listener until the test ends.
func serve(t *testing.T, l net.Listener, handler http.Handler) {
	t.Helper()
	s := &http.Server{Handler: handler, ReadHeaderTimeout: patience}
	done := make(chan struct{})
	go func() { // ends with the test
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() { _ = s.Close(); <-done })
}

func serveUnix(t *testing.T, path string, handler http.Handler) {
	t.Helper()
	l, err := listen.Unix(path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, handler)
}

func local(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func TestListen(t *testing.T) {
	h := bench(t, "--listen", "")
	wants(t, listener(t.Context(), h), OK, "socket alone")

	free := local(t)
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	wants(t, listener(t.Context(), bench(t, "--listen", address)), OK, address, "free")

	wants(t, listener(t.Context(), bench(t, "--listen", "192.0.2.1:8006")), Fail, "192.0.2.1")

	taken := local(t)
	serve(t, taken, http.NotFoundHandler())
	_, port, err := net.SplitHostPort(taken.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	wants(t, listener(t.Context(), bench(t, "--listen", taken.Addr().String())), Fail, port, "ss -ltnp")
}

// A port whose listener shows a certificate of our CA is ours; one of another installation is not.
func TestListenOfOurOwn(t *testing.T) {
	if !listen.TLSBuilt {
		t.Skip("built without ssl")
	}
	l := local(t)
	h, other := bench(t, "--listen", l.Addr().String()), bench(t, "--listen", l.Addr().String())
	for _, dir := range []string{h.DataDir, other.DataDir} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := listen.OpenCertificates(other.DataDir, []string{"localhost"}, nil); err != nil {
		t.Fatal(err)
	}
	c, err := listen.OpenCertificates(h.DataDir, []string{"localhost"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listen.TLS(l, c), http.NotFoundHandler())
	wants(t, listener(t.Context(), h), OK, "where this installation's server listens")
	wants(t, listener(t.Context(), other), Fail, "in use")
}

func TestCertificates(t *testing.T) {
	day := 24 * time.Hour
	for name, tc := range map[string]struct {
		age    time.Duration
		status Status
		words  []string
	}{
		"new":              {0, OK, []string{"the CA is valid until", "the server's until"}},
		"server's is over": {91 * day, Warn, []string{"the server's was until", "renews"}},
		"CA nearly over":   {3600 * day, Warn, []string{"valid until", "ca-key.pem"}},
		"CA is over":       {3660 * day, Fail, []string{"was valid until", "ca-key.pem"}},
		"of the future":    {-2 * day, Fail, []string{"clock is wrong"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := bench(t)
			if err := os.Mkdir(h.DataDir, 0o755); err != nil {
				t.Fatal(err)
			}
			wants(t, certificates(t.Context(), h), OK, "first start")
			then := func() time.Time { return time.Now().Add(-tc.age) }
			if _, err := listen.OpenCertificates(h.DataDir, []string{"localhost"}, then); err != nil {
				t.Fatal(err)
			}
			wants(t, certificates(t.Context(), h), tc.status, tc.words...)
		})
	}
	h := bench(t)
	if err := os.Mkdir(h.DataDir, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, h.DataDir+"/"+listen.CAFile, "rubbish", 0o644)
	wants(t, certificates(t.Context(), h), Fail, "holds no certificate")
}
