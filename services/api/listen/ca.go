package listen

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Lifetimes of certificates. A server's is renewed when a third of it is left, while it serves.
const (
	caLifetime     = 10 * 365 * 24 * time.Hour
	serverLifetime = 90 * 24 * time.Hour
	// backdate allows for clocks that are behind.
	backdate = time.Hour
)

// Files of a Certificates' folder.
const (
	CAFile     = "ca.pem" // what clients trust
	caKeyFile  = "ca-key.pem"
	ServerFile = "server.pem" // key and certificate
)

// Certificates are the installation's own CA and the server's certificate under it.
type Certificates struct {
	dir   string
	names []string
	clock func() time.Time
	ca    *x509.Certificate
	key   *ecdsa.PrivateKey

	mu     sync.Mutex
	server *tls.Certificate
}

// OpenCertificates reads the CA of a folder, or makes it at the first start, and a server's certificate for the host
// names and addresses. clock is time.Now if nil.
func OpenCertificates(dir string, names []string, clock func() time.Time) (*Certificates, error) {
	if clock == nil {
		clock = time.Now
	}
	c := &Certificates{dir: dir, names: names, clock: clock}
	err := c.loadCA()
	if errors.Is(err, os.ErrNotExist) {
		err = c.makeCA()
	}
	if err != nil {
		return nil, fmt.Errorf("CA in %s: %w", dir, err)
	}
	pair, err := c.loadServer()
	if err != nil || !c.good(pair.Leaf) {
		if pair, err = c.issue(); err != nil {
			return nil, fmt.Errorf("server's certificate in %s: %w", dir, err)
		}
	}
	c.server = pair
	return c, nil
}

// certificate is what the server shows. It is renewed here, when it is asked for.
func (c *Certificates) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.good(c.server.Leaf) {
		fresh, err := c.issue()
		if err != nil && !c.clock().Before(c.server.Leaf.NotAfter) {
			return nil, err
		}
		if err == nil {
			c.server = fresh
		}
	}
	return c.server, nil
}

// good says whether a server's certificate is ours, for our names, and for long enough.
func (c *Certificates) good(cert *x509.Certificate) bool {
	return cert.CheckSignatureFrom(c.ca) == nil && c.clock().Add(serverLifetime/3).Before(cert.NotAfter) &&
		!slices.ContainsFunc(c.names, func(name string) bool { return cert.VerifyHostname(name) != nil })
}

func (c *Certificates) loadCA() error {
	// The key is written first: a certificate without its key does not occur.
	cert, err := os.ReadFile(filepath.Join(c.dir, CAFile))
	if err != nil {
		return err
	}
	key, err := os.ReadFile(filepath.Join(c.dir, caKeyFile))
	if err != nil {
		return fmt.Errorf("the certificate is there and its key is not: %s", caKeyFile)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return err
	}
	private, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%s is no ECDSA key", caKeyFile)
	}
	c.ca, c.key = pair.Leaf, private
	return nil
}

func (c *Certificates) makeCA() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Horcrux CA"},
		NotBefore: c.clock().Add(-backdate), NotAfter: c.clock().Add(caLifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := keyPEM(key)
	if err != nil {
		return err
	}
	if err := write(filepath.Join(c.dir, caKeyFile), private, 0o600); err != nil {
		return err
	}
	if err := write(filepath.Join(c.dir, CAFile), certPEM(cert), 0o644); err != nil {
		return err
	}
	return c.loadCA()
}

func (c *Certificates) loadServer() (*tls.Certificate, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, ServerFile))
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(b, b)
	return &pair, err
}

func (c *Certificates) issue() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Horcrux"},
		NotBefore: c.clock().Add(-backdate), NotAfter: c.clock().Add(serverLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range c.names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, c.ca, &key.PublicKey, c.key)
	if err != nil {
		return nil, err
	}
	private, err := keyPEM(key)
	if err != nil {
		return nil, err
	}
	both := bytes.Join([][]byte{certPEM(cert), private}, nil)
	if err := write(filepath.Join(c.dir, ServerFile), both, 0o600); err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(both, both)
	return &pair, err
}

func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func keyPEM(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// write replaces a file whole or not at all.
func write(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
