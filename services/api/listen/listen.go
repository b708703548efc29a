// Package listen opens the gateway's doors: the Unix socket of the data dir and the TLS port. It binds first and
// serves later, so that a place that is taken ends the start.
package listen

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Unix listens on a socket path that everybody may connect to: who is let in is decided by the peer's uid. A socket
// that a dead process left is replaced; one that answers is an error.
func Unix(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		return nil, errors.Join(fmt.Errorf("another process listens on %s: stop it, or use another data dir", path), conn.Close())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // the peer's uid decides
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// TCP listens on an address such as "[::]:8006", without IPv6 where that is not built in or the machine has none.
func TCP(address string) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("--listen %s: %w", address, err)
	}
	l, err := net.Listen(network, address)
	if unspecified := host == "::" || host == ""; err != nil && unspecified && noIPv6(err) {
		l, err = net.Listen("tcp4", net.JoinHostPort("0.0.0.0", port))
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %s is in use: stop what listens there, or choose another with --listen", port)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// noIPv6 says whether a failure means that there is no IPv6 to listen on.
func noIPv6(err error) bool {
	var address *net.AddrError
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.As(err, &address)
}
