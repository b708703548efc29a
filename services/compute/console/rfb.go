package console

import (
	"encoding/binary"
	"io"

	"horcrux/pkg/problem"
)

// watcher passes on what an RFB client (RFC 6143) sends, without what would act on the guest: keys, the pointer, the
// clipboard, the size of the screen. What it does not know it refuses, since it could not tell where that ends. It holds
// no more than the beginning of one message.
type watcher struct {
	to    io.Writer
	phase phase
	head  []byte // the beginning of a message, until it is known what follows
	left  int64  // bytes of a message that still follow
	drop  bool   // they are not passed on
	err   error
}

// phase is how far a connection has come.
type phase int

const (
	hello    phase = iota // the version
	security              // the type that the client chooses
	join                  // after the credentials: whether it shares the screen
	messages
)

// Write implements io.Writer. What it fails with once, it fails with again.
func (w *watcher) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 && w.err == nil {
		if w.left > 0 {
			part := b[:min(w.left, int64(len(b)))]
			if !w.drop {
				_, w.err = w.to.Write(part)
			}
			w.left -= int64(len(part))
			b = b[len(part):]
			continue
		}
		w.head, b = append(w.head, b[0]), b[1:]
		known, err := w.read()
		if err != nil {
			w.err = err
			break
		}
		if known && !w.drop {
			_, w.err = w.to.Write(w.head)
		}
		if known {
			w.head = w.head[:0]
		}
	}
	return n - len(b), w.err
}

// read looks at head and says whether that is enough to know the message: then left and drop tell what becomes of the
// rest, and drop of head too.
func (w *watcher) read() (known bool, err error) {
	w.drop = false
	switch w.phase {
	case hello:
		return w.version()
	case security:
		w.phase = join
		switch w.head[0] {
		case 1: // none
		case 2: // password: the answer to a challenge
			w.left = 16
		default:
			return false, refuse("a security type other than none and password")
		}
		return true, nil
	case join:
		w.head[0] = 1 // shared: who only looks must not turn others out
		w.phase = messages
		return true, nil
	}
	return w.message()
}

func (w *watcher) version() (known bool, err error) {
	const form = "RFB 003.00x\n"
	if len(w.head) < len(form) {
		return false, nil
	}
	switch string(w.head) {
	case "RFB 003.007\n", "RFB 003.008\n", "RFB 003.889\n": // the last is Apple's, and means 3.8
		w.phase = security
		return true, nil
	}
	return false, refuse("a version other than 3.7 and 3.8") // up to 3.3 the server alone says what the client sends
}

// message knows RFB's own messages of clients, the two of QEMU, and those that viewers send QEMU besides.
func (w *watcher) message() (known bool, err error) {
	h := w.head
	whole := func(size int64, drop bool) (bool, error) {
		w.left, w.drop = size-int64(len(h)), drop
		return true, nil
	}
	switch h[0] {
	case 0: // SetPixelFormat
		return whole(20, false)
	case 2: // SetEncodings
		if len(h) < 4 {
			return false, nil
		}
		return whole(4+4*int64(binary.BigEndian.Uint16(h[2:])), false)
	case 3: // FramebufferUpdateRequest
		return whole(10, false)
	case 4: // KeyEvent
		return whole(8, true)
	case 5: // PointerEvent
		return whole(6, true)
	case 6: // ClientCutText; the extended one gives its length as a negative number
		if len(h) < 8 {
			return false, nil
		}
		size := int64(int32(binary.BigEndian.Uint32(h[4:])))
		return whole(8+max(size, -size), true)
	case 150: // EnableContinuousUpdates
		return whole(10, false)
	case 251: // SetDesktopSize
		if len(h) < 8 {
			return false, nil
		}
		return whole(8+16*int64(h[6]), true)
	case 255: // QEMU
		return w.qemu(whole)
	}
	return false, refuse("a message of type %d", h[0])
}

func (w *watcher) qemu(whole func(int64, bool) (bool, error)) (known bool, err error) {
	h := w.head
	switch {
	case len(h) < 2:
		return false, nil
	case h[1] == 0: // ExtendedKeyEvent
		return whole(12, true)
	case h[1] != 1:
		return false, refuse("a QEMU message of type %d", h[1])
	case len(h) < 4:
		return false, nil
	}
	switch op := binary.BigEndian.Uint16(h[2:]); op { // of Audio
	case 0, 1: // on, off
		return whole(4, false)
	case 2: // format
		return whole(10, false)
	default:
		return false, refuse("a QEMU audio message of type %d", op)
	}
}

func refuse(what string, args ...any) error {
	return problem.New(problem.Forbidden, "this viewer only watches, and sent what is not known to be harmless: "+what, args...)
}
