package bus_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// pipe is both ends of one, over two connections.
func pipe(t testing.TB, o bus.Options) (here, there *bus.Pipe) {
	t.Helper()
	s := bustest.Server(t)
	session := uuid.New()
	here, err := bustest.On(t, s, o).OpenPipe(session)
	if err != nil {
		t.Fatal(err)
	}
	there, err = bustest.On(t, s, o).JoinPipe(session)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(here.Close(), there.Close()); err != nil {
			t.Error(err)
		}
	})
	return here, there
}

func someBytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.N(256))
	}
	return b
}

func TestPipe(t *testing.T) {
	invalid := problem.New(problem.InvalidState, "it is off")
	t.Run("carries both directions whole, and ends in order", func(t *testing.T) {
		here, there := pipe(t, bus.Options{})
		up, down := someBytes(3<<20+17), someBytes(2<<20+5)
		var wg sync.WaitGroup
		defer wg.Wait()
		write := func(p *bus.Pipe, b []byte) {
			for len(b) > 0 {
				n := min(len(b), 1+rand.N(100<<10))
				if _, err := p.Write(b[:n]); err != nil {
					t.Errorf("write: %v", err)
					return
				}
				b = b[n:]
			}
		}
		wg.Go(func() { write(here, up) })
		wg.Go(func() {
			write(there, down)
			got := make([]byte, len(up))
			if _, err := io.ReadFull(there, got); err != nil || !bytes.Equal(got, up) {
				t.Errorf("there: %v, and what came is what was sent: %t", err, bytes.Equal(got, up))
			}
			if err := there.Close(); err != nil {
				t.Error(err)
			}
		})
		got, err := io.ReadAll(here)
		if err != nil || !bytes.Equal(got, down) {
			t.Errorf("here: %v, %d bytes of %d", err, len(got), len(down))
		}
		if _, err := here.Write([]byte("late")); !errors.Is(err, io.EOF) {
			t.Errorf("a write after the end: %v", err)
		}
	})
	t.Run("stops a writer whose reader does not read, and lets it go on", func(t *testing.T) {
		here, there := pipe(t, bus.Options{KeepAlive: 10 * time.Millisecond})
		var mu sync.Mutex
		written := 0
		so := func() int { mu.Lock(); defer mu.Unlock(); return written }
		var wg sync.WaitGroup
		wg.Go(func() {
			block := make([]byte, 1000)
			for so() < 1<<20 {
				if _, err := there.Write(block); err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				written += len(block)
				mu.Unlock()
			}
		})
		const window = 256 << 10
		eventually(t, "the window is full", func() bool { return so() > window-1000 })
		for range 20 { // many signs of life later
			time.Sleep(10 * time.Millisecond)
			if so() > window {
				t.Fatalf("%d bytes are under way", so())
			}
		}
		if _, err := io.CopyN(io.Discard, here, 1<<20); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
	t.Run("tells a writer who waits, and a reader after the last byte, why it ended", func(t *testing.T) {
		here, there := pipe(t, bus.Options{})
		blocked := make(chan error, 1)
		go func() { // the end of the pipe ends it
			_, err := here.Write(make([]byte, 1<<20))
			blocked <- err
		}()
		if _, err := there.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := there.End(invalid); err != nil {
			t.Fatal(err)
		}
		if err := <-blocked; !errors.Is(err, invalid) {
			t.Errorf("the writer is told %v", err)
		}
		if got, err := io.ReadAll(here); string(got) != "last words" || !errors.Is(err, invalid) {
			t.Errorf("read %q, %v", got, err)
		}
		<-here.Done()
	})
	t.Run("its own end wakes who waits", func(t *testing.T) {
		here, _ := pipe(t, bus.Options{})
		read := make(chan error, 1)
		go func() { // the end of the pipe ends it
			_, err := here.Read(make([]byte, 1))
			read <- err
		}()
		if err := here.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-read; !errors.Is(err, bus.ErrPipeClosed) {
			t.Errorf("the reader is told %v", err)
		}
	})
	t.Run("misses an end that is gone", func(t *testing.T) {
		b := bustest.New(t, bus.Options{KeepAlive: 10 * time.Millisecond})
		alone, err := b.OpenPipe(uuid.New())
		if err != nil {
			t.Fatal(err)
		}
		defer alone.Close()
		if _, err := alone.Read(make([]byte, 1)); !errors.Is(err, &problem.Problem{Code: problem.Unavailable}) {
			t.Errorf("the reader is told %v", err)
		}
	})
	t.Run("breaks rather than lose bytes", func(t *testing.T) {
		for name, message := range map[string]string{
			"lost":      "d\x00\x00\x00\x00\x00\x00\x00\x05x",
			"too much":  "d\x00\x00\x00\x00\x00\x00\x00\x00" + string(make([]byte, 257<<10)),
			"lost end":  "e\x00\x00\x00\x00\x00\x00\x00\x05",
			"empty":     "",
			"cut short": "d\x00",
			"no reason": "e\x00\x00\x00\x00\x00\x00\x00\x00{",
		} {
			s := bustest.Server(t)
			b, session := bustest.On(t, s, bus.Options{}), uuid.New()
			p, err := b.OpenPipe(session)
			if err != nil {
				t.Fatal(err)
			}
			if err := bustest.Conn(t, s).Publish(events.TTYOut(session), []byte(message)); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(p); len(got) > 0 || !errors.Is(err, &problem.Problem{Code: problem.Unavailable}) {
				t.Errorf("%s: read %q, %v", name, got, err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func BenchmarkPipe(b *testing.B) {
	here, there := pipe(b, bus.Options{})
	block := make([]byte, 32<<10)
	b.SetBytes(int64(len(block)))
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := io.CopyN(io.Discard, here, int64(len(block)*b.N)); err != nil {
			b.Error(err)
		}
	})
	b.ResetTimer()
	for range b.N {
		if _, err := there.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}
