// Package guest gives tests something to boot: a kernel, installed once into a cache outside of any checkout, and
// initial ram disks of our own.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"testing"
	"time"

	"horcrux/services/compute/hypervisor/accel/initrd"
)

// Line is what the guests of Initrd say when they are in user space.
const Line = "horcrux: guest is up"

// kernelEnv names a kernel to use instead. Modules that it needs for Obey and Telling must be built in.
const kernelEnv = "HORCRUX_GUEST_KERNEL"

// Kernel returns the path of a kernel that boots under QEMU with a serial console, readable by everybody. On Debian
// it is installed when it is missing; elsewhere the host's own is taken. Without any the test is skipped, and says so.
func Kernel(t testing.TB) string {
	t.Helper()
	return files(t)[0]
}

// Initrd writes an initial ram disk whose guest says Line.
func Initrd(t testing.TB, then initrd.Then) string {
	t.Helper()
	return SlowInitrd(t, then, 0)
}

// SlowInitrd is Initrd for a guest that does nothing at all for a while once its kernel is up.
func SlowInitrd(t testing.TB, then initrd.Then, wait time.Duration) string {
	t.Helper()
	if then == initrd.Obey {
		return write(t, initrd.Options{Then: then, Wait: wait}, "evdev.ko", "button.ko")
	}
	return write(t, initrd.Options{Then: then, Wait: wait})
}

// Telling writes an initial ram disk whose guest idles, and tells of its memory through the balloon.
func Telling(t testing.TB) string {
	t.Helper()
	return write(t, initrd.Options{Then: initrd.Idle}, balloon...)
}

// write writes an initial ram disk whose guest loads modules first, those that the kernel does not have built in.
func write(t testing.TB, o initrd.Options, modules ...string) string {
	t.Helper()
	o.Line = Line
	for _, path := range files(t)[1:] {
		if !slices.Contains(modules, filepath.Base(path)) {
			continue
		}
		module, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		o.Modules = append(o.Modules, module)
	}
	return place(t, initrd.Build(o))
}

// place writes an image where QEMU's own account can read it, which t.TempDir is not.
func place(t testing.TB, image []byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "horcrux-guest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "initrd")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, image, 0o644)); err != nil {
		t.Fatal(err)
	}
	return path
}

func files(t testing.TB) []string {
	t.Helper()
	if path := os.Getenv(kernelEnv); path != "" {
		return []string{path}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	paths, err := Install(ctx)
	if errors.Is(err, errNotDebian) {
		host, _ := filepath.Glob("/boot/vmlinuz*") // fails only for a bad pattern
		if len(host) == 0 {
			t.Skipf("real: kernel: no apt, nothing in /boot: set %s", kernelEnv)
		}
		return host[:1]
	}
	if err != nil {
		t.Fatalf("install a guest kernel: %v", err)
	}
	return paths
}

var errNotDebian = errors.New("no apt here")

// parts of the kernel's package that are kept: the kernel, then the modules in the order to load them.
var parts = []struct{ name, pattern string }{
	{"vmlinuz", "boot/vmlinuz-*"},
	{"evdev.ko", "lib/modules/*/kernel/drivers/input/evdev.ko"},
	{"button.ko", "lib/modules/*/kernel/drivers/acpi/button.ko"},
	{"virtio_ring.ko", "lib/modules/*/kernel/drivers/virtio/virtio_ring.ko"},
	{"virtio.ko", "lib/modules/*/kernel/drivers/virtio/virtio.ko"},
	{"virtio_pci_legacy_dev.ko", "lib/modules/*/kernel/drivers/virtio/virtio_pci_legacy_dev.ko"},
	{"virtio_pci_modern_dev.ko", "lib/modules/*/kernel/drivers/virtio/virtio_pci_modern_dev.ko"},
	{"virtio_pci.ko", "lib/modules/*/kernel/drivers/virtio/virtio_pci.ko"},
	{"virtio_balloon.ko", "lib/modules/*/kernel/drivers/virtio/virtio_balloon.ko"},
}

// balloon is the driver and what it needs.
var balloon = []string{
	"virtio_ring.ko", "virtio.ko", "virtio_pci_legacy_dev.ko", "virtio_pci_modern_dev.ko", "virtio_pci.ko", "virtio_balloon.ko",
}

// Install makes sure of the kernel in the cache and returns the paths of the kernel and its modules. Several
// processes may call it at the same time. Nothing is installed into the system.
func Install(ctx context.Context) ([]string, error) {
	cache := "/var/cache"
	if os.Geteuid() != 0 {
		var err error
		if cache, err = os.UserCacheDir(); err != nil {
			return nil, err
		}
	}
	base := filepath.Join(cache, "horcrux")
	if err := os.MkdirAll(base, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(base, "guest.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	dir := filepath.Join(base, "guest-2") // another number for other parts
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := download(ctx, base, dir); err != nil {
			return nil, err
		}
	}
	var paths []string
	for _, p := range parts {
		paths = append(paths, filepath.Join(dir, p.name))
	}
	return paths, nil
}

// download unpacks what is wanted of Debian's cloud kernel beside dir, and renames it when it is complete.
func download(ctx context.Context, base, dir string) error {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return errNotDebian
	}
	work, err := os.MkdirTemp(base, "unpack-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	name, err := kernelPackage(ctx)
	if err != nil {
		return err
	}
	if err := run(ctx, work, "apt-get", "-o", "APT::Sandbox::User=root", "download", name); err != nil {
		return err
	}
	debs, _ := filepath.Glob(filepath.Join(work, "*.deb"))
	if len(debs) != 1 {
		return fmt.Errorf("%d packages downloaded for %s", len(debs), name)
	}
	if err := run(ctx, work, "dpkg-deb", "-x", debs[0], "root"); err != nil {
		return err
	}
	ready := filepath.Join(work, "guest")
	if err := os.Mkdir(ready, 0o755); err != nil {
		return err
	}
	for _, p := range parts {
		found, _ := filepath.Glob(filepath.Join(work, "root", p.pattern))
		if len(found) != 1 {
			return fmt.Errorf("%d files %s in %s", len(found), p.pattern, name)
		}
		to := filepath.Join(ready, p.name)
		if err := errors.Join(os.Rename(found[0], to), os.Chmod(to, 0o644)); err != nil {
			return err
		}
	}
	return os.Rename(ready, dir)
}

// dependency of the package that always names the current kernel.
var dependency = regexp.MustCompile(`Depends: (linux-image-[0-9][^\s]*)`)

func kernelPackage(ctx context.Context) (string, error) {
	for attempt := 0; ; attempt++ {
		out, err := exec.CommandContext(ctx, "apt-cache", "depends", "linux-image-cloud-amd64").Output()
		if m := dependency.FindSubmatch(out); err == nil && m != nil {
			return string(m[1]), nil
		}
		if attempt > 0 {
			return "", fmt.Errorf("apt knows no linux-image-cloud-amd64: %w", err)
		}
		if err := run(ctx, "/", "apt-get", "-o", "DPkg::Lock::Timeout=300", "update"); err != nil {
			return "", err
		}
	}
}

func run(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
