package pgserver

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

const (
	// attempts is how often in a row the server is brought up without living for steadyAfter. Those on a full disk do
	// not count: it is waited for, however long nobody makes room.
	attempts    = 8
	steadyAfter = 10 * time.Second
	// fullBelow is the room in bytes without which the server cannot live: a segment of its log.
	fullBelow = 16 << 20
	// pauseMin doubles with each attempt in a row, up to pauseMax.
	pauseMin = 100 * time.Millisecond
	pauseMax = 10 * time.Second
	// pauseFull is the pause while the disk is full.
	pauseFull = time.Second
	// logEvery is how often the log's size is looked at.
	logEvery = time.Minute
)

// supervise restarts the server until ctx ends, and then leaves it as it is.
func (s *Server) supervise(ctx context.Context) {
	defer close(s.done)
	tick := time.NewTicker(logEvery)
	defer tick.Stop()
	started, tried := time.Now(), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if err := s.cluster.boundLog(); err != nil {
				s.log.Warn("postgres's log could not be bounded", "error", err)
			}
			continue
		case <-s.proc.done:
		}
		if time.Since(started) >= steadyAfter {
			tried = 0
		}
		s.log.Error("postgres died and is started again", "pid", s.proc.pid, "log", s.cluster.logFile())
		p, err := s.revive(ctx, &tried)
		if ctx.Err() != nil && p == nil {
			return
		}
		if err != nil {
			s.err = err
			s.log.Error("postgres is given up", "error", err)
			return
		}
		s.setProcess(p)
		started = time.Now()
	}
}

// revive brings a dead server up again, with pauses, until tried has reached attempts or ctx ends.
func (s *Server) revive(ctx context.Context, tried *int) (*process, error) {
	var last error
	for *tried < attempts {
		pause := min(s.cluster.pause<<*tried, pauseMax)
		if s.cluster.full() {
			pause = pauseFull
		} else {
			*tried++
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		limited, cancel := context.WithTimeout(ctx, startLimit)
		p, err := s.cluster.bringUp(limited)
		cancel()
		if err == nil {
			return p, nil
		}
		last = err
		s.log.Error("postgres did not start", "attempt", *tried, "of", attempts, "error", err)
	}
	return nil, fmt.Errorf("postgres died %d times in a row: %w", attempts, last)
}

// full says whether there is too little room for the server. It does not know where it cannot ask.
func (c *cluster) full() bool {
	var fs syscall.Statfs_t
	err := syscall.Statfs(c.dir, &fs)
	return err == nil && fs.Bavail*uint64(fs.Bsize) < fullBelow
}

func (s *Server) setProcess(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
}
