//go:build !no_qemu

package libvirt

import (
	"context"
	"fmt"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// DaemonVersion is that of libvirt itself. It makes the daemon look at no hypervisor.
func (d *Driver) DaemonVersion(ctx context.Context) (string, error) {
	v, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (uint64, error) { return l.ConnectGetLibVersion() })
	if err != nil {
		return "", fmt.Errorf("version of libvirt: %w", err)
	}
	return fmt.Sprintf("%d.%d.%d", v/1e6, v/1e3%1e3, v%1e3), nil
}
