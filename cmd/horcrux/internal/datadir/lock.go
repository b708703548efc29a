package datadir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// InUseError: another process has the data dir, which whoever wraps it names.
type InUseError struct {
	Root string
	Run  string // where its sockets are
	Pid  int    // 0 when the holder has not written it yet
}

func (e *InUseError) Error() string {
	who := "another horcrux"
	if e.Pid != 0 {
		who += fmt.Sprintf(" (pid %d)", e.Pid)
	}
	return fmt.Sprintf("in use by %s: stop that one, or choose another --data-dir", who)
}

// take locks the data dir. The kernel lets go of the lock when the process ends, however it ends.
func (d *Dir) take() error {
	lock, err := os.OpenFile(filepath.Join(d.Root, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = &InUseError{Root: d.Root, Run: d.Run, Pid: holder(lock)}
	}
	if err == nil {
		err = lock.Truncate(0)
	}
	if err == nil {
		_, err = lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		return errors.Join(err, lock.Close())
	}
	d.lock = lock
	return nil
}

// holder reads the pid that the holder of a lock wrote, 0 when there is none to read.
func holder(lock *os.File) int {
	raw, err := io.ReadAll(io.LimitReader(lock, 32))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0
	}
	return pid
}

// Holder returns the pid of the process that has the data dir at path, 0 when none has it. It takes no lock itself, so
// that it is in nobody's way.
func Holder(path string) (int, error) {
	info, err := os.Stat(filepath.Join(path, "lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, errors.New("the lock has no inode")
	}
	held, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, err
	}
	// "1: FLOCK  ADVISORY  WRITE 5428 fe:00:9977956 0 EOF". The device is left aside: file systems of several
	// layers tell another one here than stat does.
	inode := fmt.Sprintf(":%d", stat.Ino)
	for line := range strings.Lines(string(held)) {
		f := strings.Fields(line)
		if len(f) > 5 && f[1] == "FLOCK" && f[3] == "WRITE" && strings.HasSuffix(f[5], inode) {
			return strconv.Atoi(f[4])
		}
	}
	return 0, nil
}
