package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/services/storage/backend"
)

const (
	// qemuImgTime bounds one run where the context does not: copying an image of a terabyte at 300 MB/s.
	qemuImgTime = time.Hour
	// killTime is how long a killed run may keep its pipes.
	killTime = 5 * time.Second
	// stderrKept is how many bytes of its complaints are kept for the log.
	stderrKept = 4 << 10
	// probeBytes is more than qemu-img writes at once (2 MiB, 4 MiB with a cluster's metadata).
	probeBytes = 16 << 20
)

// fd names an inherited file: 0 is the first of those handed to qemuImg. qemu-img never sees a path that a user could
// have named or that somebody could have replaced since it was opened.
func fd(i int) string { return "/proc/self/fd/" + strconv.Itoa(3+i) }

// qemuImg runs qemu-img, which writes to the last of the files.
func qemuImg(ctx context.Context, files []*os.File, args ...string) error {
	bin, err := exec.LookPath("qemu-img")
	if err != nil {
		return fmt.Errorf("%w: %w", backend.ErrUnsupported, err)
	}
	ctx, cancel := context.WithTimeout(ctx, qemuImgTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env = []string{"LC_ALL=C"}
	cmd.ExtraFiles = files
	cmd.WaitDelay = killTime
	stderr := &head{limit: stderrKept}
	cmd.Stderr = stderr
	// Dies with this process. The signal belongs to the thread that started it, so this one has to stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	err = cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("qemu-img %s: %w", args[0], ctx.Err())
	}
	err = fmt.Errorf("qemu-img %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.kept))
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return classify("run", err)
	}
	// It says why only in words. The file system says whether it is full.
	if full(files[len(files)-1]) {
		return fmt.Errorf("%w: %w", backend.ErrExhausted, err)
	}
	return fmt.Errorf("%w: %w", backend.ErrInvalid, err)
}

// full says whether the file cannot get another piece of space.
func full(f *os.File) bool {
	end, err := f.Seek(0, 2)
	if err != nil {
		return false
	}
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, end, probeBytes)
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// head keeps the first bytes written to it.
type head struct {
	kept  []byte
	limit int
}

func (h *head) Write(p []byte) (int, error) {
	h.kept = append(h.kept, p[:min(len(p), h.limit-len(h.kept))]...)
	return len(p), nil
}
