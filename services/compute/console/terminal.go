package console

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Manners at a terminal that others may be reading: how long what is there is left to them, and how much of it. A terminal
// that is full would hold the guest up.
const (
	leaveEach  = 5 * time.Millisecond
	leaveTimes = 4
	leaveBytes = 2 << 10
)

// terminal is a serial line opened for typing. The hypervisor then sends there too what the guest says; what nobody else
// takes is read and dropped, since it is in the log anyway.
type terminal struct {
	file  *os.File
	drain sync.WaitGroup
}

func openTerminal(path string) (*terminal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t := &terminal{file: f}
	t.drain.Go(func() { drain(raw) })
	return t, nil
}

// close wakes whoever writes.
func (t *terminal) close() {
	t.file.Close() // a terminal keeps nothing back that could fail
	t.drain.Wait()
}

// drain goes on until the terminal is closed here.
func drain(raw syscall.RawConn) {
	b := make([]byte, 4<<10)
	for {
		if err := raw.Read(func(fd uintptr) bool { return waiting(fd) > 0 }); err != nil {
			return
		}
		left := 0
		look := func(fd uintptr) { left = waiting(fd) }
		if raw.Control(look) != nil {
			return
		}
		for i := 0; i < leaveTimes && left > 0 && left <= leaveBytes; i++ {
			time.Sleep(leaveEach)
			if raw.Control(look) != nil {
				return
			}
		}
		if left == 0 {
			continue // somebody took it
		}
		if raw.Control(func(fd uintptr) { _, _ = unix.Read(int(fd), b) }) != nil { // it does not block; what fails is tried again
			return
		}
	}
}

// waiting is how many bytes can be read from a terminal.
func waiting(fd uintptr) int {
	n, err := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	if err != nil {
		return 0 // it was hung up
	}
	return n
}
