package guest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shellInit says Line and gives the serial console a shell.
const shellInit = `#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
echo '` + Line + `'
exec /bin/busybox sh
`

// Shell writes an initial ram disk whose guest says Line and then obeys commands on its first serial port. Without the
// tools for it the test is skipped, and says so.
func Shell(t testing.TB) string {
	t.Helper()
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Skipf("real: kernel: %v", err)
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		t.Skipf("real: kernel: %v", err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, dir := range []string{"bin", "dev"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.WriteFile(filepath.Join(root, "bin/busybox"), program, 0o755),
		os.WriteFile(filepath.Join(root, "init"), []byte(shellInit), 0o755)); err != nil {
		t.Fatal(err)
	}
	pack := exec.CommandContext(t.Context(), cpio, "-o", "-H", "newc", "--quiet")
	pack.Dir, pack.Stdin = root, strings.NewReader("bin\nbin/busybox\ndev\ninit\n")
	var said bytes.Buffer
	pack.Stderr = &said
	image, err := pack.Output()
	if err != nil {
		t.Fatalf("cpio: %v %s", err, said.String())
	}
	return place(t, image)
}
