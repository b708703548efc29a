//go:build crashpoints

package crashpoint

import (
	"os"
	"strings"
	"syscall"
)

// Reach kills the process with SIGKILL when HORCRUX_CRASHPOINT is "<point>:<subject>", once: the file that
// HORCRUX_CRASHPOINT_ONCE names is made first, and where it exists nothing happens.
func Reach(point, subject string) {
	want, on, ok := strings.Cut(os.Getenv("HORCRUX_CRASHPOINT"), ":")
	if !ok || want != point || on != subject {
		return
	}
	f, err := os.OpenFile(os.Getenv("HORCRUX_CRASHPOINT_ONCE"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	f.Close()
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // the signal is on its way
}
