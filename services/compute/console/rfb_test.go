package console

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"horcrux/pkg/problem"
)

// greeting is what a client sends up to its first message: version, no security, and that it wants the screen alone.
const greeting = "RFB 003.008\n\x01\x00"

// greeted is what becomes of it.
const greeted = "RFB 003.008\n\x01\x01"

const (
	pixelFormat = "\x00\x00\x00\x00" + "\x20\x18\x00\x01\x00\xff\x00\xff\x00\xff\x10\x08\x00\x00\x00\x00"
	encodings   = "\x02\x00\x00\x02\x00\x00\x00\x00\xff\xff\xff\x11"
	update      = "\x03\x01\x00\x00\x00\x00\x04\x00\x03\x00"
	key         = "\x04\x01\x00\x00\x00\x00\x00\x61"
	pointer     = "\x05\x01\x00\x10\x00\x10"
	cutText     = "\x06\x00\x00\x00\x00\x00\x00\x03abc"
	cutExtended = "\x06\x00\x00\x00\xff\xff\xff\xfc\x01\x02\x03\x04"
	continuous  = "\x96\x01\x00\x00\x00\x00\x04\x00\x03\x00"
	resize      = "\xfb\x00\x04\x00\x03\x00\x01\x00" + "0123456789abcdef"
	extendedKey = "\xff\x00\x00\x01\x00\x00\x00\x61\x00\x00\x00\x1e"
	audioOn     = "\xff\x01\x00\x00"
	audioFormat = "\xff\x01\x00\x02\x03\x02\x00\x00\xac\x44"
)

func watched(pieces ...[]byte) (string, error) {
	var out bytes.Buffer
	w := &watcher{to: &out}
	for _, p := range pieces {
		if n, err := w.Write(p); err != nil {
			return out.String(), err
		} else if n != len(p) {
			return out.String(), errors.New("it took less and said nothing")
		}
	}
	return out.String(), nil
}

func TestWatcher(t *testing.T) {
	for name, tc := range map[string]struct {
		sent, passed string
		refused      bool
	}{
		"a handshake":      {greeting, greeted, false},
		"a password":       {"RFB 003.007\n\x020123456789abcdef\x01", "RFB 003.007\n\x020123456789abcdef\x01", false},
		"Apple's version":  {"RFB 003.889\n\x01\x01", "RFB 003.889\n\x01\x01", false},
		"an old version":   {"RFB 003.003\n\x01", "", true},
		"encryption":       {"RFB 003.008\n\x13", "RFB 003.008\n", true},
		"looking":          {greeting + pixelFormat + encodings + update + continuous + audioOn + audioFormat, greeted + pixelFormat + encodings + update + continuous + audioOn + audioFormat, false},
		"acting":           {greeting + key + pointer + cutText + cutExtended + resize + extendedKey, greeted, false},
		"both in turn":     {greeting + update + key + update + cutText + update + extendedKey + update, greeted + update + update + update + update, false},
		"no text":          {greeting + "\x06\x00\x00\x00\x00\x00\x00\x00" + update, greeted + update, false},
		"an unknown":       {greeting + update + "\x09" + update, greeted + update, true},
		"unknown to QEMU":  {greeting + "\xff\x02", greeted, true},
		"unknown audio":    {greeting + "\xff\x01\x00\x09", greeted, true},
		"half of a key":    {greeting + key[:5], greeted, false},
		"the longest text": {greeting + "\x06\x00\x00\x00\x80\x00\x00\x00" + key, greeted, false},
	} {
		t.Run(name, func(t *testing.T) {
			for how, pieces := range map[string][][]byte{"whole": {[]byte(tc.sent)}, "byte by byte": slices.Collect(slices.Chunk([]byte(tc.sent), 1))} {
				got, err := watched(pieces...)
				if got != tc.passed || errors.Is(err, &problem.Problem{Code: problem.Forbidden}) != tc.refused || (err != nil) != tc.refused {
					t.Errorf("%s: passed %q, %v; want %q", how, got, err, tc.passed)
				}
			}
		})
	}
}

// What is passed on does not depend on how it comes in pieces, would be passed on again as it is, and ends with what was
// refused. No more of a message is held than its beginning.
func FuzzWatcher(f *testing.F) {
	for _, seed := range []string{
		greeting, greeting + pixelFormat + encodings + update, greeting + key + pointer + cutText + resize, greeting + extendedKey + audioFormat,
		greeting + cutExtended + update, greeting + "\x09", "RFB 003.003\n", "RFB 003.007\n\x020123456789abcdef\x01" + update,
	} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, sent []byte, size uint8) {
		whole, err := watched(sent)
		pieces, errPieces := watched(slices.Collect(slices.Chunk(sent, int(size)+1))...)
		if whole != pieces || (err == nil) != (errPieces == nil) {
			t.Fatalf("whole: %q, %v; in pieces: %q, %v", whole, err, pieces, errPieces)
		}
		if again, err := watched([]byte(whole)); again != whole || err != nil {
			t.Fatalf("%q became %q, %v", whole, again, err)
		}
		w := &watcher{to: &bytes.Buffer{}}
		for _, b := range sent {
			if _, err := w.Write([]byte{b}); err != nil {
				break
			}
			if len(w.head) > 12 {
				t.Fatalf("%d bytes are held", len(w.head))
			}
		}
	})
}
