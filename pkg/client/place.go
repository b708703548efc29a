package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Place is where a server is and how to come in.
type Place struct {
	URL     string // https://host:8006; "" for the socket of DataDir
	Token   string // bearer token for URL
	DataDir string // has the socket and ca.pem, which is trusted besides the system's authorities
	// Wrap, if not nil, is put around the transport; tests look at the exchanges there.
	Wrap func(http.RoundTripper) http.RoundTripper
}

// ErrNoServer: nothing says where a server is.
var ErrNoServer = errors.New("no server found: start one with horcrux serve, or set HORCRUX_URL and HORCRUX_TOKEN, or HORCRUX_DATA_DIR")

const (
	socketName = "api.sock"
	caFile     = "ca.pem"
)

// dataDirs are looked at in this order when the environment names none.
var dataDirs = []string{".horcrux", "/var/lib/horcrux"}

// Find returns the place that the environment names: HORCRUX_URL with HORCRUX_TOKEN, else HORCRUX_DATA_DIR, else the
// first data dir that has a socket. The error is ErrNoServer.
func Find(getenv func(string) string) (Place, error) {
	dir := getenv("HORCRUX_DATA_DIR")
	for _, d := range dataDirs {
		if dir != "" {
			break
		}
		if _, err := os.Stat(filepath.Join(d, socketName)); err == nil {
			dir = d
		}
	}
	p := Place{URL: getenv("HORCRUX_URL"), DataDir: dir}
	if p.URL != "" {
		p.Token = getenv("HORCRUX_TOKEN") // never sent anywhere but to the URL that it came with
	} else if dir == "" {
		return Place{}, ErrNoServer
	}
	return p, nil
}

func (p Place) String() string {
	if p.URL != "" {
		return p.URL
	}
	return filepath.Join(p.DataDir, socketName)
}

// longestSocket is how many bytes of path the kernel takes for a socket.
const longestSocket = 107

// connectTimeout bounds how long a connection, with its TLS handshake, may take.
const connectTimeout = 10 * time.Second

// transport returns how to reach the place and the base of its URLs.
func (p Place) transport() (*http.Transport, string, error) {
	dialer := &net.Dialer{Timeout: connectTimeout}
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout,
		ForceAttemptHTTP2: true, MaxIdleConns: 8, IdleConnTimeout: 30 * time.Second,
	}
	if p.URL == "" {
		socket := p.String()
		if len(socket) > longestSocket { // a link may lead to a shorter path
			var err error
			if socket, err = filepath.EvalSymlinks(socket); err != nil {
				return nil, "", fmt.Errorf("socket: %w", err)
			}
		}
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}
		return t, "http://localhost", nil
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, "", fmt.Errorf("HORCRUX_URL %q is not like https://host:8006", p.URL)
	}
	if u.Scheme == "https" && p.DataDir != "" {
		roots, err := authorities(filepath.Join(p.DataDir, caFile))
		if err != nil {
			return nil, "", err
		}
		t.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	return t, u.String(), nil
}

// authorities returns those of the system and of a file, nil for those of the system alone when the file cannot be
// read: it is missing on other hosts, where SSL_CERT_FILE names a copy.
func authorities(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("certificate authority %s has no certificate", file)
	}
	return pool, nil
}
