package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/api/console"
)

// OpenVMConsole implements StrictServerInterface, as the methods below do.
func (s *Server) OpenVMConsole(ctx context.Context, r OpenVMConsoleRequestObject) (OpenVMConsoleResponseObject, error) {
	return s.console(ctx, r.ID, vm.OpenConsole{Console: vm.ConsoleVNC, ReadOnly: or(r.Params.ReadOnly, false)})
}

func (s *Server) OpenVMSerial(ctx context.Context, r OpenVMSerialRequestObject) (OpenVMSerialResponseObject, error) {
	return s.console(ctx, r.ID, vm.OpenConsole{Console: vm.ConsoleSerial, ReadOnly: or(r.Params.ReadOnly, false)})
}

func (s *Server) GetVMSerialLog(ctx context.Context, r GetVMSerialLogRequestObject) (GetVMSerialLogResponseObject, error) {
	p, err := s.openConsole(ctx, r.ID, vm.OpenConsole{Console: vm.ConsoleSerialLog, ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer context.AfterFunc(ctx, func() { s.closeConsole(p) })()
	defer s.closeConsole(p)
	text, err := io.ReadAll(p)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("log of the serial console: %w", err)
	}
	return answer{status: http.StatusOK, body: text, header: map[string]string{
		"Content-Type": "application/octet-stream", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
	}}, nil
}

// console opens a console and answers with a WebSocket. Whatever is in its way is answered with a problem before.
func (s *Server) console(ctx context.Context, ref string, o vm.OpenConsole) (answer, error) {
	req := callOf(ctx).req
	if err := console.Upgradable(req); err != nil {
		return answer{}, err
	}
	select {
	case s.consoles <- struct{}{}:
	default:
		return answer{}, problem.New(problem.TooManyRequests, "%d consoles are open, which is the most", cap(s.consoles))
	}
	p, err := s.openConsole(ctx, ref, o)
	if err != nil {
		<-s.consoles
		return answer{}, err
	}
	return answer{stream: func(w http.ResponseWriter) error {
		defer func() { <-s.consoles }()
		ws, err := websocket.Accept(w, req, nil)
		if err != nil { // it has answered
			s.closeConsole(p)
			return fmt.Errorf("accept a WebSocket: %w", err)
		}
		gauge := s.metrics.consoles.WithLabelValues(string(o.Console))
		gauge.Inc()
		defer gauge.Dec()
		return console.Carry(ws, p, s.draining)
	}}, nil
}

// openConsole asks the node of a machine for one of its consoles.
func (s *Server) openConsole(ctx context.Context, ref string, o vm.OpenConsole) (*bus.Pipe, error) {
	if err := s.caughtUp(ctx, vm.Kind); err != nil {
		return nil, err
	}
	found, err := s.Submit.Object(ctx, &vm.Resource, vm.NameScope, ref)
	if err != nil {
		return nil, err
	}
	node, err := uuid.Parse(found.Node)
	if err != nil {
		return nil, problem.New(problem.InvalidState, "the virtual machine is on no node yet")
	}
	o.VM = found.ID
	return console.Open(ctx, s.Consoles, node, o)
}

func (s *Server) closeConsole(p *bus.Pipe) {
	if err := p.Close(); err != nil {
		s.Log.Warn("close a console", "error", err)
	}
}
