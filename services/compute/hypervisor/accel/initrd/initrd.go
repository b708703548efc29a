// Package initrd builds the smallest guest userland there is: a one-file initial ram disk whose init, assembled here,
// says a line on the console. It shows that a kernel came up to user space, and serves tests as a guest.
package initrd

import (
	"bytes"
	"fmt"
	"time"
)

// Then is what init does after its line.
type Then int

// The endings.
const (
	PowerOff Then = iota // by ACPI
	Idle                 // for ever, deaf to everything
	Obey                 // power off when the power button is pressed; needs the kernel's button and evdev, see Options
)

// Options of an image.
type Options struct {
	Line string        // said on the console, without line break
	Wait time.Duration // until init does anything: a guest that takes its time to boot
	Then Then
	// Modules are kernel modules, loaded in this order before the line. Where button and evdev are not built into the
	// kernel they belong here, for Obey.
	Modules [][]byte
}

// Build returns a cpio archive that a kernel for x86-64 takes as its initrd, uncompressed.
func Build(o Options) []byte {
	a := &archive{}
	a.add("dev", 0o040755, 0, 0, nil)
	a.add("dev/console", 0o020600, 5, 1, nil) // the kernel opens it as init's standard streams
	for i, m := range o.Modules {
		a.add(module(i), 0o100644, 0, 0, m)
	}
	a.add("init", 0o100755, 0, 0, program(o))
	return a.end()
}

func module(i int) string { return fmt.Sprintf("%d.ko", i) }

// archive is a cpio archive of the kind "newc": for each file a header of hexadecimal numbers, the name and the
// contents, name and contents padded to four bytes.
type archive struct {
	buf   bytes.Buffer
	inode int
}

func (a *archive) add(name string, mode, major, minor int, content []byte) {
	a.inode++
	fmt.Fprintf(&a.buf, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, major, minor, len(name)+1, 0, name)
	a.pad()
	a.buf.Write(content)
	a.pad()
}

func (a *archive) pad() { a.buf.Write(make([]byte, -a.buf.Len()&3)) }

func (a *archive) end() []byte {
	a.add("TRAILER!!!", 0, 0, 0, nil)
	return a.buf.Bytes()
}
