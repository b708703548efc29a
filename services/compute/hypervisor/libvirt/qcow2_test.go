//go:build !no_qemu

package libvirt_test

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"horcrux/services/compute/hypervisor"
)

// qcow2 makes a disk that keeps snapshots.
func qcow2(t *testing.T) hypervisor.Disk {
	t.Helper()
	path := filepath.Join(shortDir(t), "0.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", path, "1M")
	return hypervisor.Disk{Type: "file", Path: path, Format: "qcow2", SizeBytes: 1 << 20, Bus: "virtio", Cache: "default", Discard: "unmap"}
}

func write(t *testing.T, disk hypervisor.Disk, pattern byte) {
	t.Helper()
	tool(t, "qemu-io", "-f", "qcow2", "-c", "write -P "+strconv.Itoa(int(pattern))+" 0 512", disk.Path)
}

// read is the first byte of what qemu-io dumps: "00000000:  61 61 …".
func read(t *testing.T, disk hypervisor.Disk) byte {
	t.Helper()
	out := tool(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 512", disk.Path)
	fields := strings.Fields(out)
	if len(fields) < 2 {
		t.Fatal(out)
	}
	b, err := strconv.ParseUint(fields[1], 16, 8)
	if err != nil {
		t.Fatal(out)
	}
	return byte(b)
}

func tool(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
