package system_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"horcrux/test/instance"
)

// openPTY makes a terminal: its two ends.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); failed == nil {
			number, failed = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// mode is how a terminal is set.
func mode(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

// consoleInTerminal is `horcrux vm console` as a person uses it.
func consoleInTerminal(t *testing.T, i *instance.Instance) {
	master, slave := openPTY(t)
	before := mode(t, slave)
	cmd := i.Command(t.Context(), "vm", "console", "c1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var screen transcript
	go func() { // ends with the terminal
		b := make([]byte, 4096)
		for {
			n, err := master.Read(b)
			_, _ = screen.Write(b[:n]) // to memory
			if err != nil {
				return
			}
		}
	}()
	shows := func(what string) {
		t.Helper()
		instance.Eventually(t, consoleTime, "the terminal shows "+what, func() bool { return strings.Contains(screen.String(), what) })
	}
	key := func(keys string) {
		t.Helper()
		if _, err := master.WriteString(keys); err != nil {
			t.Fatal(err)
		}
	}
	shows("Ctrl-] leaves")
	instance.Eventually(t, consoleTime, "the terminal is raw", func() bool { return mode(t, slave).Lflag&unix.ICANON == 0 })
	key("echo term-$((70+1))\n")
	shows("term-71")
	key("sleep 1000\n")
	key("\x03") // to the guest, not to the command
	key("echo after-$((80+1))\n\x1d")
	if err := cmd.Wait(); err != nil {
		t.Errorf("it left with %v:\n%s", err, &screen)
	}
	if after := mode(t, slave); after != before {
		t.Errorf("the terminal was %+v, and is %+v", before, after)
	}
}
