//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// target is where a daemon listens and what to ask it for.
type target struct {
	uri     string   // as the daemon understands it, without transport
	sockets []string // the first that answers is taken
}

// parse understands the URIs of virsh as far as they mean a socket on this node.
func parse(uri string) (target, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return target{}, fmt.Errorf("parse URI: %w", err)
	}
	driver, transport, _ := strings.Cut(u.Scheme, "+")
	switch {
	case u.Host != "" || transport != "" && transport != "unix":
		return target{}, fmt.Errorf("URI %q: only Unix sockets of this node", uri)
	case driver != "qemu" && driver != "test":
		return target{}, fmt.Errorf("URI %q: the driver is neither qemu nor test", uri)
	case u.Path == "" || u.Path == "/":
		return target{}, fmt.Errorf("URI %q: no path, such as /system", uri)
	}
	t := target{uri: driver + "://" + u.Path}
	switch socket := u.Query().Get("socket"); {
	case socket != "":
		t.sockets = []string{socket}
	case u.Path == "/session":
		dir := os.Getenv("XDG_RUNTIME_DIR")
		if dir == "" {
			return target{}, fmt.Errorf("URI %q: XDG_RUNTIME_DIR is not set", uri)
		}
		t.sockets = []string{filepath.Join(dir, "libvirt/libvirt-sock"), filepath.Join(dir, "libvirt/virtqemud-sock")}
	default:
		t.sockets = []string{"/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"}
	}
	return t, nil
}

func (t target) connect(ctx context.Context) (net.Conn, error) {
	var dialer net.Dialer
	var failed []error
	for _, s := range t.sockets {
		conn, err := dialer.DialContext(ctx, "unix", s)
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}
