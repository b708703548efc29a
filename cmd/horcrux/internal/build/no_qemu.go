//go:build no_qemu

package build

const qemu = false
