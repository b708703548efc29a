//go:build no_ssl

package listen

import "net"

// TLSBuilt says whether the TLS listener is in this binary.
const TLSBuilt = false

// TLS is never called: without the ssl flag the gateway has its Unix socket alone.
func TLS(l net.Listener, _ *Certificates) net.Listener { return l }
