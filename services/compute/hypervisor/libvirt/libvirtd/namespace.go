//go:build !no_qemu

package libvirtd

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Subcommand is the hidden argument with which our own binary is started to become the daemon. A Go program cannot
// set mounts up between fork and exec, so it is executed in the new namespace, does it there, and then gives way.
const Subcommand = "libvirtd-namespace"

// Hook belongs at the top of main, and of TestMain where a test starts daemons: in a process started with Subcommand
// it does not return.
func Hook() {
	if len(os.Args) < 2 || os.Args[1] != Subcommand {
		return
	}
	fmt.Fprintln(os.Stderr, RunInNamespace(os.Args[2:]))
	os.Exit(1)
}

// places are where libvirt was built to look, by the folder that we put there.
var places = map[string]string{
	"etc":   "/etc/libvirt",
	"lib":   "/var/lib/libvirt",
	"cache": "/var/cache/libvirt",
	"log":   "/var/log/libvirt",
	"run":   "/run/libvirt",
	"lock":  "/run/lock", // of consoles; a container may have no such folder
}

// Outside is where a path that the daemon names is for those who do not live in its namespace.
func (d *Daemon) Outside(path string) string {
	if d.session {
		return path
	}
	for part, place := range places {
		if rest, below := strings.CutPrefix(path, place+"/"); below {
			return filepath.Join(d.opts.Dir, part, rest)
		}
	}
	return path
}

// RunInNamespace mounts the folder's parts in their places and becomes the daemon. It is called in a fresh mount
// namespace with the folder, whether to show KVM, and the daemon's argv. It returns only to fail.
func RunInNamespace(args []string) error {
	if len(args) < 3 {
		return errors.New("usage: " + Subcommand + " <folder> <kvm: true|false> <daemon> [argument…]")
	}
	dir, argv := args[0], args[2:]
	kvm, err := strconv.ParseBool(args[1])
	if err != nil {
		return fmt.Errorf("kvm: %w", err)
	}
	// What the host mounts later shall be seen here, and nothing of ours there.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("leave the host's mounts: %w", err)
	}
	for part, place := range places {
		if err := os.MkdirAll(place, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(filepath.Join(dir, part), place, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", place, err)
		}
	}
	if !kvm {
		if err := hideKVM(filepath.Join(dir, "nokvm")); err != nil {
			return err
		}
	}
	return fmt.Errorf("execute %s: %w", argv[0], syscall.Exec(argv[0], argv, os.Environ()))
}

// hideKVM puts a read-only empty file in the place of /dev/kvm, so that access(2) for writing, by which libvirt finds
// out, fails for root too. The rest of /dev stays the host's, with devices that come later.
func hideKVM(empty string) error {
	const device = "/dev/kvm"
	if _, err := os.Stat(device); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unix.Mount(empty, device, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("hide %s: %w", device, err)
	}
	if err := unix.Mount("", device, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("hide %s: %w", device, err)
	}
	return nil
}

// spawn starts the daemon in a session of its own, so that no signal of our terminal reaches it.
func (d *Daemon) spawn() (*process, error) {
	log, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer log.Close()
	if err := os.WriteFile(d.stampFile(), d.stamp(), 0o600); err != nil {
		return nil, fmt.Errorf("remember how it was started: %w", err)
	}
	cmd := exec.Command(d.argv[0], d.argv[1:]...)
	cmd.Env = d.env
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !d.session {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	p, err := hold(cmd.Process.Pid, cmd)
	if err != nil {
		return nil, errors.Join(err, cmd.Process.Kill(), cmd.Wait())
	}
	return p, nil
}

// command is what to execute: the daemon, or ourselves to become it.
func (d *Daemon) command() (argv, env []string) {
	argv = []string{d.opts.Path, "--config", d.confFile(), "--pid-file", d.pidFile()}
	env = append(os.Environ(), "LC_ALL=C") // some errors can only be told by their words
	if !d.session {
		return append([]string{"/proc/self/exe", Subcommand, d.opts.Dir, strconv.FormatBool(d.opts.KVM)}, argv...), env
	}
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "XDG_") })
	return argv, append(env,
		"XDG_CONFIG_HOME="+d.opts.Dir,
		"XDG_CACHE_HOME="+filepath.Join(d.opts.Dir, "cache"),
		"XDG_DATA_HOME="+filepath.Join(d.opts.Dir, "lib"),
		"XDG_RUNTIME_DIR="+filepath.Join(d.opts.Dir, "run"))
}
