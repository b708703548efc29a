package console

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

// rest reads all that is there.
func rest(t testing.TB, r *record) (text string, skipped int64) {
	t.Helper()
	b := make([]byte, 1000)
	for {
		n, gone, err := r.read(b)
		if err != nil {
			t.Fatal(err)
		}
		skipped += gone
		if n == 0 {
			return text, skipped
		}
		text += string(b[:n])
	}
}

func TestRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	r, err := openRecord(path, 4)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	is := func(want string, gone int64) {
		t.Helper()
		if got, skipped := rest(t, r); got != want || skipped != gone {
			t.Fatalf("read %q and %d gone, want %q and %d", got, skipped, want, gone)
		}
	}
	is("", 0)
	write(t, path, "from the start")
	is("from the start", 0)
	write(t, path, ", and on")
	is(", and on", 0)

	late, err := openRecord(path, 6)
	if err != nil {
		t.Fatal(err)
	}
	defer late.close()
	if got, _ := rest(t, late); got != "and on" {
		t.Errorf("a late reader has %q", got)
	}

	write(t, path, "before, ")
	if err := os.Rename(path, path+".0"); err != nil {
		t.Fatal(err)
	}
	write(t, path, "after the change")
	is("before, after the change", 0)

	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	is("", 0)
	write(t, path, "anew")
	is("anew", 0)

	write(t, path, strings.Repeat("x", 3*Window)+"end")
	if got, skipped := rest(t, r); !strings.HasSuffix(got, "xend") || len(got) != Window/2 || skipped != int64(3*Window+3-Window/2) {
		t.Errorf("a slow reader has %d bytes, %d are gone", len(got), skipped)
	}
}

func TestLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	is := func(want string) {
		t.Helper()
		if got, err := last(path); err != nil || string(got) != want {
			t.Fatalf("%d bytes, %v; want %d", len(got), err, len(want))
		}
	}
	is("")
	write(t, path, "a little")
	is("a little")
	write(t, path+".0", "what was before, ")
	is("what was before, a little")
	write(t, path, strings.Repeat("y", Window-4)+"end")
	is("e" + strings.Repeat("y", Window-4) + "end")
}

// A log is written, kept short and read all at once: what is read has no hole in it, and what is kept is the end.
func TestShorten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.log")
	const lines, length = 200_000, 64
	line := func(n int) string { return fmt.Sprintf("%0*d\n", length-1, n) }
	write(t, path, "")
	var written atomic.Bool
	var writing sync.WaitGroup
	writing.Go(func() {
		defer written.Store(true)
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for n := 0; n < lines; n += 100 {
			var page strings.Builder
			for k := range 100 {
				page.WriteString(line(n + k))
			}
			if _, err := f.WriteString(page.String()); err != nil {
				t.Error(err)
				return
			}
		}
	})
	r, err := openRecord(path, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	b := make([]byte, 8<<10)
	whole := func(b []byte) {
		t.Helper()
		if bytes.IndexByte(b, 0) >= 0 {
			t.Fatal("a hole was read")
		}
	}
	for done := false; !done; {
		done = written.Load()
		if err := shorten(dir); err != nil {
			t.Fatal(err)
		}
		n, _, err := r.read(b)
		if err != nil {
			t.Fatal(err)
		}
		whole(b[:n])
		end, err := last(path)
		if err != nil {
			t.Fatal(err)
		}
		whole(end)
	}
	writing.Wait()
	if err := shorten(dir); err != nil {
		t.Fatal(err)
	}
	var is unix.Stat_t
	if err := unix.Stat(path, &is); err != nil || is.Blocks*512 > 2*Window+8192 || is.Size != lines*length {
		t.Errorf("it takes %d bytes for %d, %v", is.Blocks*512, is.Size, err)
	}
	end, err := last(path)
	if err != nil || len(end) != Window || !bytes.HasSuffix(end, []byte(line(lines-1))) {
		t.Errorf("its end is %d bytes, %v", len(end), err)
	}
	for at := 0; at < len(end); at += length {
		if want := line(lines - (len(end)-at)/length); string(end[at:at+length]) != want {
			t.Fatalf("at %d it reads %q, want %q", at, end[at:at+length], want)
		}
	}
}
