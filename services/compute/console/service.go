// Package console carries the consoles of a node's virtual machines over the bus: the screen as RFB bytes, the serial
// line, and the end of what the serial line said. It never comes between guest and hypervisor: a viewer who does not read
// waits for himself alone.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
)

// Driver is what is asked of a hypervisor here.
type Driver interface {
	// Consoles says where the consoles of a domain are. It fails as a hypervisor.Driver does, with ErrNotFound.
	Consoles(ctx context.Context, id uuid.UUID) (hypervisor.Consoles, error)
}

// Bus is what the service needs of the bus.
type Bus interface {
	Serve(ctx context.Context, domain string, node uuid.UUID, method string, answer func(context.Context, json.RawMessage) (any, error)) error
	JoinPipe(session uuid.UUID) (*bus.Pipe, error)
}

// Options of New.
type Options struct {
	Node   uuid.UUID
	Bus    Bus
	Driver Driver
	// LogDir is the folder in which hypervisors write serial logs, <id>.log each; they are kept short. "" for none.
	LogDir string
	Log    *slog.Logger
	// Sessions is how many consoles may be open on this node at a time; 0 means 1024.
	Sessions int
}

// Service opens consoles while Run runs.
type Service struct {
	Options
	places  chan struct{} // one for each open session
	running sync.WaitGroup
}

// New returns a service that does nothing before Run.
func New(o Options) *Service {
	if o.Sessions == 0 {
		o.Sessions = 1024
	}
	return &Service{Options: o, places: make(chan struct{}, o.Sessions)}
}

// Run serves until ctx ends, and then ends the consoles that are open.
func (s *Service) Run(ctx context.Context) error {
	s.running.Go(func() { s.keepShort(ctx) })
	defer s.running.Wait()
	return s.Bus.Serve(ctx, vm.Resource.Domain, s.Node, vm.ConsoleMethod, func(calling context.Context, request json.RawMessage) (any, error) {
		var o vm.OpenConsole
		if err := json.Unmarshal(request, &o); err != nil {
			return nil, fmt.Errorf("request for a console: %w", err)
		}
		return nil, s.open(ctx, calling, o)
	})
}

// session is a console that is at hand.
type session interface {
	// carry moves bytes until the console, the pipe or ctx ends; the pipe is closed when it returns.
	carry(ctx context.Context, p *bus.Pipe)
	// close gives up what carry was not called for.
	close()
}

// leaving is why consoles end when the service does.
func leaving() *problem.Problem {
	return problem.New(problem.Unavailable, "the node's service is stopping; open the console again")
}

// open starts a session, which lasts as long as life allows.
func (s *Service) open(life, ctx context.Context, o vm.OpenConsole) error {
	places, err := s.Driver.Consoles(ctx, o.VM)
	if err != nil {
		return explain(err)
	}
	select {
	case s.places <- struct{}{}:
	default:
		return problem.New(problem.TooManyRequests, "%d consoles are open on the node, which is the most", cap(s.places))
	}
	free := func() { <-s.places }
	c, err := s.reach(ctx, o, places)
	if err != nil {
		free()
		return err
	}
	p, err := s.Bus.JoinPipe(o.Session)
	if err != nil {
		c.close()
		free()
		return err
	}
	s.running.Go(func() {
		defer free()
		c.carry(life, p)
	})
	return nil
}

func (s *Service) reach(ctx context.Context, o vm.OpenConsole, at hypervisor.Consoles) (session, error) {
	none := func(what string) error {
		return problem.New(problem.InvalidState, "the virtual machine has no %s", what)
	}
	switch {
	case o.Console == vm.ConsoleSerialLog && at.SerialLog == "":
		return nil, none("log of its serial console")
	case o.Console == vm.ConsoleSerialLog:
		return history{at.SerialLog, s.Log}, nil
	case !at.Active:
		return nil, problem.New(problem.InvalidState, "the virtual machine does not run")
	case o.Console == vm.ConsoleVNC && at.VNC == "":
		return nil, none("screen that can be reached")
	case o.Console == vm.ConsoleVNC:
		return reachScreen(ctx, s, o, at.VNC)
	case o.Console == vm.ConsoleSerial && (at.Serial == "" || at.SerialLog == ""):
		return nil, none("serial console that can be reached")
	case o.Console == vm.ConsoleSerial:
		return reachSerial(s.Log, at, o.ReadOnly)
	}
	return nil, problem.New(problem.InvalidValue, "there is no console %q", o.Console)
}

// explain is what a caller may know of a driver's failure.
func explain(err error) error {
	switch {
	case errors.Is(err, hypervisor.ErrNotFound):
		return fmt.Errorf("%w: %w", problem.New(problem.InvalidState, "the hypervisor does not know the virtual machine"), err)
	case errors.Is(err, hypervisor.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", problem.New(problem.HypervisorUnavailable, "the hypervisor does not answer"), err)
	}
	return err
}

// ended closes a pipe and logs what that fails with: nobody is left to be told.
func ended(log *slog.Logger, p *bus.Pipe, why *problem.Problem) {
	if err := p.End(why); err != nil {
		log.Warn("end a console", "err", err)
	}
}
