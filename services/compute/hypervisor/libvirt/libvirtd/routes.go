//go:build !no_qemu

package libvirtd

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// routes are the IPv4 destinations that this host knows ways to, the default way aside.
func routes() ([]netip.Prefix, error) {
	text, err := os.ReadFile("/proc/net/route")
	if err != nil {
		return nil, err
	}
	return parseRoutes(string(text))
}

// parseRoutes reads /proc/net/route: a header, then lines whose second and eighth fields are address and mask as
// hexadecimal numbers in the machine's byte order.
func parseRoutes(text string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		f := strings.Fields(line)
		if i == 0 || len(f) < 8 {
			continue
		}
		addr, err := strconv.ParseUint(f[1], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", i, err)
		}
		mask, err := strconv.ParseUint(f[7], 16, 32)
		if err != nil {
			return nil, fmt.Errorf("route %d: %w", i, err)
		}
		if mask == 0 {
			continue
		}
		var b [4]byte
		binary.NativeEndian.PutUint32(b[:], uint32(addr))
		out = append(out, netip.PrefixFrom(netip.AddrFrom4(b), bits.OnesCount32(uint32(mask))))
	}
	return out, nil
}
