package serve

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// stopTime bounds the end of one part.
const stopTime = 20 * time.Second

// stack holds the parts that are up, to be stopped in the reverse order of their start.
type stack struct {
	log    *slog.Logger
	parts  []part
	failed chan error // the first part that ended by itself
}

type part struct {
	name string
	stop func(context.Context) error
}

func newStack(log *slog.Logger) *stack { return &stack{log: log, failed: make(chan error, 1)} }

// push adds a part that is up.
func (s *stack) push(name string, stop func(context.Context) error) {
	s.parts = append(s.parts, part{name, stop})
}

// run runs a part until it is stopped. One that ends by itself ends the whole.
func (s *stack) run(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx; stop waits for done
		defer close(done)
		err := run(ctx)
		if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
			return
		}
		select {
		case s.failed <- fmt.Errorf("%s ended: %w", name, err):
		default: // another part ended first
		}
	}()
	s.push(name, func(stop context.Context) error {
		cancel()
		select {
		case <-done:
			return nil
		case <-stop.Done():
			return fmt.Errorf("%s did not end within %s", name, stopTime)
		}
	})
}

// stop stops everything, the last started first. It goes on where a part fails.
func (s *stack) stop() error {
	var errs []error
	for len(s.parts) > 0 {
		p := s.parts[len(s.parts)-1]
		s.parts = s.parts[:len(s.parts)-1]
		ctx, cancel := context.WithTimeout(context.Background(), stopTime)
		begin := time.Now()
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("stop %s: %w", p.name, err))
		}
		cancel()
		s.log.Debug("stopped", "part", p.name, "took", time.Since(begin))
	}
	return errors.Join(errs...)
}
