package system_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"horcrux/test/instance"
)

// pidIn reads the pid of a daemon of an instance from the first line of a file below the data dir.
func pidIn(t *testing.T, i *instance.Instance, file string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(i.Dir, file))
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil || pid < 2 {
		t.Fatalf("%s holds %q", file, b)
	}
	return pid
}

// killDaemon kills a daemon of an instance with SIGKILL and waits for its end.
func killDaemon(t *testing.T, i *instance.Instance, file string) {
	t.Helper()
	pid := pidIn(t, i, file)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	instance.Eventually(t, 10*time.Second, "the daemon ends", func() bool { return !alive(pid) })
}

func killLibvirt(t *testing.T, i *instance.Instance) {
	t.Helper()
	killDaemon(t, i, "libvirt/libvirtd.pid")
}

func killPostgres(t *testing.T, i *instance.Instance) {
	t.Helper()
	killDaemon(t, i, "postgres/data/postmaster.pid")
}

// alive says whether a process runs; one that has ended and is not waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(after, "Z")
}
