package accel

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"horcrux/services/compute/hypervisor/accel/initrd"
)

const line = "horcrux: user space reached"

// boot runs a kernel until init has said its line. The guest is gone when it returns.
func boot(ctx context.Context, o Options, kernel string, accelerator ...string) error {
	dir, err := os.MkdirTemp("", "horcrux-probe-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "initrd")
	if err := os.WriteFile(image, initrd.Build(initrd.Options{Line: line}), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout, errors.New("no line from user space in time"))
	defer cancel()
	cmd := exec.CommandContext(ctx, o.QEMU, append([]string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35", "-m", "512",
		"-serial", "stdio", "-kernel", kernel, "-initrd", image, "-append", "console=ttyS0 panic=-1",
	}, accelerator...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	console, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	said := listen(console)
	cancelled := context.Cause(ctx)
	if said {
		cancel()
	}
	err = cmd.Wait()
	switch {
	case said:
		return nil
	case cancelled != nil:
		return cancelled
	case err == nil:
		return errors.New("it ended without a line from user space")
	}
	first, _, _ := strings.Cut(complaint.String(), "\n")
	return fmt.Errorf("QEMU: %w: %s", err, first)
}

// listen reads a console until init's line, or its end.
func listen(console io.Reader) bool {
	lines := bufio.NewScanner(io.LimitReader(console, 1<<20))
	for lines.Scan() {
		if strings.TrimSpace(lines.Text()) == line {
			return true
		}
	}
	return false
}

// find returns the kernels among files and in folders, the newest of a folder first.
func find(places []string) []string {
	var found []string
	for _, place := range places {
		info, err := os.Stat(place)
		if err != nil {
			continue // not there is an answer too
		}
		if !info.IsDir() {
			found = append(found, place)
			continue
		}
		var here []string
		for _, pattern := range []string{"vmlinuz*", "kernel-*", "bzImage*"} {
			names, _ := filepath.Glob(filepath.Join(place, pattern)) // fails only for a bad pattern
			here = append(here, names...)
		}
		slices.SortStableFunc(here, func(a, b string) int { return modified(b).Compare(modified(a)) })
		found = append(found, here...)
	}
	return slices.DeleteFunc(found, func(path string) bool { return !bootable(path) })
}

func modified(path string) time.Time {
	info, err := os.Stat(path)
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// bootable says whether a file has the magic of the x86 boot protocol ("HdrS" at 0x202).
func bootable(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	magic := make([]byte, 4)
	_, err = f.ReadAt(magic, 0x202)
	return err == nil && string(magic) == "HdrS"
}
