package listen_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"horcrux/services/api/listen"
)

func TestCertificates(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	clock := func() time.Time { return now }
	certs, err := listen.OpenCertificates(dir, []string{"localhost", "127.0.0.1"}, clock)
	if err != nil {
		t.Fatal(err)
	}
	first := handshake(t, dir, certs, now)
	t.Run("KeptOverARestart", func(t *testing.T) {
		again, err := listen.OpenCertificates(dir, []string{"localhost", "127.0.0.1"}, clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := handshake(t, dir, again, now); !got.Equal(first) {
			t.Error("another certificate")
		}
	})
	t.Run("RenewedWhileServing", func(t *testing.T) {
		now = now.Add(80 * 24 * time.Hour)
		if got := handshake(t, dir, certs, now); got.Equal(first) || got.NotAfter.Before(now.Add(60*24*time.Hour)) {
			t.Errorf("valid until %v", got.NotAfter)
		}
	})
	t.Run("AnotherName", func(t *testing.T) {
		more, err := listen.OpenCertificates(dir, []string{"localhost", "127.0.0.1", "node.example"}, clock)
		if err != nil {
			t.Fatal(err)
		}
		if got := handshake(t, dir, more, now); got.VerifyHostname("node.example") != nil {
			t.Errorf("%v", got.DNSNames)
		}
	})
	t.Run("KeysAreSecret", func(t *testing.T) {
		for _, name := range []string{"ca-key.pem", "server.pem"} {
			if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, info.Mode(), err)
			}
		}
	})
	t.Run("CAWithoutKey", func(t *testing.T) {
		if err := os.Remove(filepath.Join(dir, "ca-key.pem")); err != nil {
			t.Fatal(err)
		}
		if _, err := listen.OpenCertificates(dir, nil, clock); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("%v: a CA that clients trust must not be replaced", err)
		}
	})
}

// handshake connects as a client that trusts the CA alone, and returns what the server shows.
func handshake(t *testing.T, dir string, certs *listen.Certificates, now time.Time) *x509.Certificate {
	t.Helper()
	tcp, err := listen.TCP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := listen.TLS(tcp, certs)
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
			err = errors.Join(err, conn.Close())
		}
		served <- err
	}()
	ca, err := os.ReadFile(filepath.Join(dir, listen.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots, Time: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	shown := conn.ConnectionState().PeerCertificates[0]
	if err := errors.Join(conn.Close(), <-served); err != nil {
		t.Fatal(err)
	}
	return shown
}

func TestUnixIsForEverybody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listen.Unix(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v %v", info.Mode(), err)
	}
}

func TestTCP(t *testing.T) {
	l, err := listen.TCP("[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", "127.0.0.1:"+port)
	if err != nil {
		t.Fatalf("IPv4 is not listened on: %v", err)
	}
	conn.Close()
	if _, err := listen.TCP("nonsense"); err == nil {
		t.Error("took nonsense")
	}
}
