// Package console carries the consoles of virtual machines between WebSockets and the nodes.
package console

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// Bus is what consoles need of the bus.
type Bus interface {
	Call(ctx context.Context, domain string, node uuid.UUID, method string, request, result any) error
	OpenPipe(session uuid.UUID) (*bus.Pipe, error)
}

// Open asks a node for a console. The caller closes the pipe. It fails with what the node answered, and with unavailable
// where nobody did.
func Open(ctx context.Context, b Bus, node uuid.UUID, o vm.OpenConsole) (*bus.Pipe, error) {
	o.Session = events.NewID()
	p, err := b.OpenPipe(o.Session)
	if err != nil {
		return nil, err
	}
	if err := b.Call(ctx, vm.Resource.Domain, node, vm.ConsoleMethod, o, nil); err != nil {
		return nil, errors.Join(err, p.Close()) // which tells a node that was late
	}
	return p, nil
}

// Upgradable refuses a request that is not for a WebSocket, or comes from a page of another site.
func Upgradable(r *http.Request) error {
	if origin := r.Header.Get("Origin"); origin != "" {
		if _, host, ok := strings.Cut(origin, "://"); !ok || !strings.EqualFold(host, r.Host) {
			return problem.New(problem.Forbidden, "a page of another site must not open a console")
		}
	}
	if r.ProtoMajor != 1 || !names(r.Header, "Connection", "upgrade") || !names(r.Header, "Upgrade", "websocket") ||
		r.Header.Get("Sec-WebSocket-Version") != "13" || len(r.Header.Values("Sec-WebSocket-Key")) != 1 {
		return problem.New(problem.MalformedRequest, "a console is a WebSocket, version 13, over HTTP/1.1")
	}
	return nil
}

// names says whether a header that is a list has a word.
func names(h http.Header, name, word string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(part), word) {
				return true
			}
		}
	}
	return false
}

// A viewer is pinged, and closed when it does not answer: it is gone, or has not read for as long.
const (
	pingEach = 15 * time.Second
	pongTime = 60 * time.Second
)

// ending is what a WebSocket is closed with.
type ending struct {
	code   websocket.StatusCode
	reason string
}

// Carry moves bytes between a WebSocket, in binary messages, and a console until either ends or drain is closed; it has
// closed both when it returns, and waited for all that it began.
func Carry(ws *websocket.Conn, p *bus.Pipe, drain <-chan struct{}) error {
	ctx, cancel := context.WithCancel(context.Background())
	ends := make(chan ending, 3)
	var moving sync.WaitGroup
	for _, move := range []func(context.Context, *websocket.Conn, *bus.Pipe) ending{show, take, ping} {
		moving.Go(func() { ends <- move(ctx, ws, p) })
	}
	var end ending
	select {
	case end = <-ends:
	case <-drain:
		end = ending{websocket.StatusGoingAway, "the server is stopping; open the console again"}
	}
	err := p.Close()                   // wakes who waits for the pipe
	_ = ws.Close(end.code, end.reason) // it is closed all the same where the viewer is gone or does not read
	cancel()
	moving.Wait()
	return err
}

// show sends what the console says.
func show(ctx context.Context, ws *websocket.Conn, p *bus.Pipe) ending {
	b := make([]byte, 32<<10)
	for {
		n, err := p.Read(b)
		if err != nil {
			return endingOf(err)
		}
		if err := ws.Write(ctx, websocket.MessageBinary, b[:n]); err != nil {
			return ending{websocket.StatusNormalClosure, ""} // the viewer is gone
		}
	}
}

// take passes on what the viewer sends, of whatever length: it is not held.
func take(ctx context.Context, ws *websocket.Conn, p *bus.Pipe) ending {
	ws.SetReadLimit(-1)
	b := make([]byte, 32<<10)
	for {
		_, r, err := ws.Reader(ctx)
		if err != nil {
			return ending{websocket.StatusNormalClosure, ""} // the viewer has closed it
		}
		if _, err := io.CopyBuffer(p, r, b); err != nil {
			select {
			case <-p.Done(): // show sends the rest and says why
				<-ctx.Done()
			default:
			}
			return ending{websocket.StatusNormalClosure, ""}
		}
	}
}

func ping(ctx context.Context, ws *websocket.Conn, _ *bus.Pipe) ending {
	tick := time.NewTicker(pingEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ending{}
		case <-tick.C:
		}
		within, cancel := context.WithTimeout(ctx, pongTime)
		err := ws.Ping(within)
		cancel()
		if err != nil {
			return ending{websocket.StatusPolicyViolation, "the viewer does not answer"}
		}
	}
}

// endingOf says why a console has ended.
func endingOf(err error) ending {
	told := problem.From(err)
	switch {
	case errors.Is(err, io.EOF):
		return ending{websocket.StatusNormalClosure, "the virtual machine has stopped"}
	case told == nil:
		return ending{websocket.StatusNormalClosure, ""}
	case told.Code == problem.Forbidden:
		return ending{websocket.StatusPolicyViolation, reason(told.Detail)}
	case told.Code == problem.Unavailable:
		return ending{websocket.StatusGoingAway, reason(told.Detail)}
	case told.Code == problem.InvalidState:
		return ending{websocket.StatusNormalClosure, reason(told.Detail)}
	}
	return ending{websocket.StatusInternalError, reason(told.Detail)}
}

// reason cuts a text to what a close frame takes.
func reason(text string) string {
	const most = 123 // bytes
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most-3], "") + "…"
}
