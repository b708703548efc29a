package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/pkg/bus"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
)

// before is how much of what was said is shown to a new viewer, in bytes: a screen or two, with the prompt.
const before = 16 << 10

// How long a serial log without news is left alone: it grows while the line is silent.
const (
	leastPause = 2 * time.Millisecond
	mostPause  = 64 * time.Millisecond
)

// history sends the end of a serial log.
type history struct {
	path string
	log  *slog.Logger
}

func (history) close() {}

func (h history) carry(ctx context.Context, p *bus.Pipe) {
	stop := context.AfterFunc(ctx, func() { ended(h.log, p, leaving()) })
	defer stop()
	b, err := last(h.path)
	if err == nil {
		_, err = p.Write(b)
	} else {
		h.log.Error("read a serial log", "err", err)
	}
	var why *problem.Problem
	if err != nil {
		why = problem.New(problem.Unavailable, "the log of the serial console cannot be read now")
	}
	ended(h.log, p, why)
}

// serial is an open serial line. What the guest says comes from the log that the hypervisor writes, not from the terminal:
// there every byte has one reader, who would be missing it elsewhere, and a reader who waits makes the guest wait.
type serial struct {
	log    *slog.Logger
	record *record
	line   int       // the terminal as a place, not opened
	keys   *terminal // nil for a viewer who only reads
	typed  chan struct{}
}

func reachSerial(log *slog.Logger, at hypervisor.Consoles, readOnly bool) (_ *serial, err error) {
	s := &serial{log: log, line: -1, typed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.line, err = unix.Open(at.Serial, unix.O_PATH|unix.O_CLOEXEC, 0); errors.Is(err, unix.ENOENT) {
		return nil, problem.New(problem.InvalidState, "the virtual machine has just stopped")
	} else if err != nil {
		return nil, fmt.Errorf("serial line %s: %w", at.Serial, err)
	}
	if s.record, err = openRecord(at.SerialLog, before); err != nil {
		return nil, fmt.Errorf("serial log: %w", err)
	}
	if !readOnly {
		if s.keys, err = openTerminal(at.Serial); err != nil {
			return nil, fmt.Errorf("serial line: %w", err)
		}
	}
	return s, nil
}

func (s *serial) close() {
	if s.line >= 0 {
		_ = unix.Close(s.line) // a place holds nothing back
	}
	if s.record != nil {
		s.record.close()
	}
	if s.keys != nil {
		s.keys.close()
	}
}

// gone says whether the hypervisor has given the line up: its terminal has no name any more. Another that gets the same
// name is another file.
func (s *serial) gone() bool {
	var is unix.Stat_t
	return unix.Fstat(s.line, &is) != nil || is.Nlink == 0
}

func (s *serial) carry(ctx context.Context, p *bus.Pipe) {
	var typing sync.WaitGroup
	typing.Go(func() { s.take(p) })
	stop := context.AfterFunc(ctx, func() { ended(s.log, p, leaving()) })
	var why *problem.Problem
	if err := s.show(p); err != nil {
		s.log.Error("read a serial log", "err", err)
		why = problem.New(problem.Unavailable, "the log of the serial console cannot be read now")
	}
	stop()
	ended(s.log, p, why)
	s.close()
	typing.Wait()
}

// show sends what the guest says until it has stopped and everything is sent, or the pipe ends. It fails when the log
// cannot be read.
func (s *serial) show(p *bus.Pipe) error {
	b := make([]byte, 32<<10)
	old := int64(before) // what a new viewer is shown was said to others
	for pause := leastPause; ; pause = min(2*pause, mostPause) {
		gone := s.gone() // before the last look, after which nothing more comes
		for {
			n, skipped, err := s.record.read(b)
			if err != nil {
				return err
			}
			if skipped > 0 {
				if _, err := fmt.Fprintf(p, "\r\n[%d bytes were said too fast for this viewer]\r\n", skipped); err != nil {
					return nil //nolint:nilerr // the viewer is gone
				}
			}
			if n == 0 {
				break
			}
			said := b[:n]
			if old > 0 {
				said = queries.ReplaceAll(said, nil)
			}
			if _, err := p.Write(said); err != nil {
				return nil //nolint:nilerr // the viewer is gone
			}
			old -= int64(n)
			pause = leastPause
		}
		old = 0
		if gone {
			return nil
		}
		select {
		case <-p.Done():
			return nil
		case <-s.typed:
			pause = leastPause
		case <-time.After(pause):
		}
	}
}

// queries make a terminal answer. One that was asked long ago would type the answer into the guest.
var queries = regexp.MustCompile(`\x1b\[[?>=]?[0-9;]*[cn]`)

// take types what the viewer sends, or lets it fall, until the pipe ends.
func (s *serial) take(p *bus.Pipe) {
	b := make([]byte, 4<<10)
	for {
		n, err := p.Read(b)
		if err != nil {
			return // and so is the other direction
		}
		if s.keys == nil {
			continue
		}
		if _, err := s.keys.file.Write(b[:n]); err != nil && !errors.Is(err, os.ErrClosed) && !errors.Is(err, unix.EIO) { // EIO: it has stopped
			s.log.Warn("type into a serial line", "err", err)
		}
		select {
		case s.typed <- struct{}{}:
		default:
		}
	}
}
