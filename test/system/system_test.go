// Package system_test tries the whole of horcrux as its users do: a process of its own, REST over its socket, and
// libvirt, QEMU, Postgres and the file system asked for what really happened.
package system_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"horcrux/pkg/openapi/openapitest"
	"horcrux/services/compute/hypervisor/accel/initrd"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
	"horcrux/test/instance"
)

var binary string

func TestMain(m *testing.M) {
	libvirtd.Hook()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "horcrux-bin")
		if err == nil {
			defer os.RemoveAll(dir)
			binary, err = instance.Build(dir, "")
		}
		if err == nil {
			err = os.Chmod(dir, 0o755) // other users run it too
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// qemuInstance is an instance with a libvirtd of its own. Every answer of it is held against the OpenAPI document.
func qemuInstance(t *testing.T) *instance.Instance {
	t.Helper()
	return newInstance(t, binary, "--libvirt-private", "yes", "--accelerator", "tcg")
}

// bareInstance is an instance whose hypervisor is not there, which is up all the same, and sooner.
func bareInstance(t *testing.T, args ...string) *instance.Instance {
	t.Helper()
	i := newInstance(t, binary, append([]string{
		"--libvirt-private", "no", "--libvirt-uri", "qemu+unix:///system?socket=/nonexistent", "--accelerator", "tcg",
	}, args...)...)
	i.Probe = "/healthz"
	return i
}

// newInstance is an instance of a binary, on a free port, that is not running.
func newInstance(t *testing.T, binary string, args ...string) *instance.Instance {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons")
	}
	i := instance.New(t, binary, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	i.Check = openapitest.Load(t).CheckAnswer
	return i
}

// volumeFiles lists the files in the pool `local`, temporary ones too.
func volumeFiles(t *testing.T, i *instance.Instance) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(i.Dir, "volumes"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != ".horcrux-pool" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// settled fails where an operation does not end. What was refused has ended, which the read model shows a moment later.
func settled(t *testing.T, i *instance.Instance) {
	t.Helper()
	instance.Eventually(t, 5*time.Second, "every operation has ended", func() bool {
		n := 0
		for _, state := range []string{"queued", "running"} {
			var list struct{ Items []struct{ ID string } }
			i.Get("/api/operations?state="+state, &list)
			n += len(list.Items)
		}
		return n == 0
	})
}

// guestFiles puts a kernel, and an initrd that does what then says, where a request may name them.
func guestFiles(t *testing.T, i *instance.Instance, then initrd.Then) (kernel, image string) {
	t.Helper()
	return slowGuestFiles(t, i, then, 0)
}

// slowGuestFiles are those of a guest that does nothing at all for a while once its kernel is up.
func slowGuestFiles(t *testing.T, i *instance.Instance, then initrd.Then, wait time.Duration) (kernel, image string) {
	t.Helper()
	return imageFile(t, i, guest.Kernel(t), "vmlinuz"), imageFile(t, i, guest.SlowInitrd(t, then, wait), "initrd")
}

// imageFile puts a file where a request may name it.
func imageFile(t *testing.T, i *instance.Instance, from, name string) string {
	t.Helper()
	b, err := os.ReadFile(from)
	to := filepath.Join(i.Dir, "images", name)
	if err := errors.Join(err, os.WriteFile(to, b, 0o644)); err != nil {
		t.Fatal(err)
	}
	return to
}

// small is a machine that needs next to nothing, with more and other fields.
func small(name string, more map[string]any) map[string]any {
	spec := map[string]any{"name": name, "memory_mb": 32, "networks": []any{}}
	maps.Copy(spec, more)
	return spec
}
