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

// processes lists what runs on behalf of an instance: what names its data dir, works in it or has it mounted.
func processes(t *testing.T, i *instance.Instance) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range all {
		line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
		if err != nil || len(line) == 0 {
			continue // it has ended
		}
		cwd, _ := os.Readlink(filepath.Join(dir, "cwd"))          // likewise,
		mounts, _ := os.ReadFile(filepath.Join(dir, "mountinfo")) // as here
		if strings.Contains(string(line)+"\n"+cwd+"/\n"+string(mounts), i.Dir+"/") {
			found = append(found, strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " "))
		}
	}
	return found
}
