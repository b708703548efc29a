//go:build !no_ssl

package listen

import (
	"crypto/tls"
	"net"
)

// TLSBuilt says whether the TLS listener is in this binary.
const TLSBuilt = true

// TLS serves TLS on a listener, with a certificate of the installation's own CA.
func TLS(l net.Listener, c *Certificates) net.Listener {
	return tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, GetCertificate: c.certificate,
	})
}
