package initrd

import (
	"bytes"
	"encoding/binary"
	"time"
)

// Numbers of the Linux interface on x86-64.
const (
	sysWrite      = 1
	sysOpen       = 2
	sysPoll       = 7
	sysIoctl      = 16
	sysPause      = 34
	sysNanosleep  = 35
	sysMount      = 165
	sysReboot     = 169
	sysFinitMod   = 313
	ioctlTCSBRK   = 0x5409
	rebootMagic1  = 0xfee1dead
	rebootMagic2  = 0x28121969
	rebootPowerOf = 0x4321fedc
	pollIn        = 1
)

// program is init.
func program(o Options) []byte {
	p := &assembly{}
	line := "\r\n" + o.Line + "\r\n"

	if o.Wait > 0 {
		var span [16]byte // struct timespec
		binary.LittleEndian.PutUint64(span[:], uint64(o.Wait/time.Second))
		binary.LittleEndian.PutUint64(span[8:], uint64(o.Wait%time.Second))
		p.call(sysNanosleep, p.bytes(span[:]), constant(0))
	}
	for i := range o.Modules {
		p.call(sysOpen, p.text("/"+module(i)), constant(0))
		p.keep()
		p.call(sysFinitMod, kept{}, p.text(""), constant(0))
	}
	var fds data
	const devices = 4 // input devices that are listened to; the power button is one of the first
	if o.Then == Obey {
		dev := p.text("/dev")
		p.call(sysMount, p.text("devtmpfs"), dev, p.text("devtmpfs"), constant(0), constant(0))
		var list bytes.Buffer
		for range devices {
			list.Write([]byte{0xff, 0xff, 0xff, 0xff, pollIn, 0, 0, 0}) // struct pollfd: fd -1, which poll ignores
		}
		fds = p.bytes(list.Bytes())
		for i := range devices {
			p.call(sysOpen, p.text("/dev/input/event"+string(rune('0'+i))), constant(0))
			p.store(fds + data(8*i))
		}
	}
	p.call(sysWrite, constant(1), p.text(line), constant(len(line)))
	p.call(sysIoctl, constant(1), constant(ioctlTCSBRK), constant(1)) // wait until it is sent
	if o.Then == Obey {
		p.call(sysPoll, fds, constant(devices), constant(-1))
	}
	if o.Then != Idle {
		p.call(sysReboot, constant(rebootMagic1), constant(rebootMagic2), constant(rebootPowerOf))
	}
	p.idle()
	return p.executable()
}

// assembly collects machine code and the data that it names.
type assembly struct {
	code, data bytes.Buffer
	fixups     []int // places in code that hold an offset in data, to become an address
}

type (
	operand interface {
		load(p *assembly, register int)
	}
	constant int64    // a number of 32 bits
	data     uint32   // the address of something in data
	kept     struct{} // what keep kept; only as the first operand
)

// registers of a system call's operands, as "mov r32, imm32" is encoded for each: rdi, rsi, rdx, r10, r8.
var registers = [][]byte{{0xbf}, {0xbe}, {0xba}, {0x41, 0xba}, {0x41, 0xb8}}

func (c constant) load(p *assembly, register int) {
	p.code.Write(registers[register])
	p.number(uint32(c))
}

func (d data) load(p *assembly, register int) {
	p.code.Write(registers[register])
	p.address(d)
}

func (kept) load(p *assembly, _ int) { p.code.Write([]byte{0x4c, 0x89, 0xe7}) } // mov rdi, r12

// call makes a system call; its result is in rax.
func (p *assembly) call(number uint32, operands ...operand) {
	for i, o := range operands {
		o.load(p, i)
	}
	p.code.WriteByte(0xb8) // mov eax, number
	p.number(number)
	p.code.Write([]byte{0x0f, 0x05}) // syscall
}

// keep puts the result of the last call aside: mov r12, rax.
func (p *assembly) keep() { p.code.Write([]byte{0x49, 0x89, 0xc4}) }

// store writes the low half of the result of the last call: mov [address], eax.
func (p *assembly) store(to data) {
	p.code.Write([]byte{0x89, 0x04, 0x25})
	p.address(to)
}

// idle sleeps for ever: mov eax, pause; syscall; jmp back.
func (p *assembly) idle() {
	p.call(sysPause)
	p.code.Write([]byte{0xeb, 0xf7})
}

func (p *assembly) text(s string) data { return p.bytes([]byte(s + "\x00")) }

func (p *assembly) bytes(b []byte) data {
	p.data.Write(make([]byte, -p.data.Len()&7))
	at := data(p.data.Len())
	p.data.Write(b)
	return at
}

func (p *assembly) number(n uint32) { p.code.Write(binary.LittleEndian.AppendUint32(nil, n)) }

func (p *assembly) address(d data) {
	p.fixups = append(p.fixups, p.code.Len())
	p.number(uint32(d))
}

// executable is an ELF file of one segment: headers, code, data, loaded as it is.
func (p *assembly) executable() []byte {
	const (
		base    = 0x400000
		headers = 64 + 56
	)
	code := p.code.Bytes()
	start := uint32(headers + len(code))
	start += -start & 7
	for _, at := range p.fixups {
		offset := binary.LittleEndian.Uint32(code[at:])
		binary.LittleEndian.PutUint32(code[at:], base+start+offset)
	}
	size := uint64(start) + uint64(p.data.Len())

	var f bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&f, binary.LittleEndian, v) // to memory, of fixed sizes: cannot fail
		}
	}
	put([16]byte{0x7f, 'E', 'L', 'F', 2, 1, 1}, // 64 bits, little endian, version 1
		uint16(2), uint16(62), uint32(1), // executable, x86-64, version
		uint64(base+headers), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	put(uint32(1), uint32(7), // load, readable, writable and executable
		uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000))
	f.Write(code)
	f.Write(make([]byte, int(start)-f.Len()))
	f.Write(p.data.Bytes())
	return f.Bytes()
}
