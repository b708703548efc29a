//go:build no_qemu

package doctor

// qemuChecks: nothing of it is needed.
func qemuChecks() []check { return nil }
