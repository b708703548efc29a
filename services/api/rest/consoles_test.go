package rest

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
)

// serveConsoles lets a node answer, which greets and echoes.
func serveConsoles(t *testing.T, w *world, b *bus.Bus) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := b.Serve(ctx, vm.Resource.Domain, w.service.node, vm.ConsoleMethod, func(_ context.Context, request json.RawMessage) (any, error) {
			var o vm.OpenConsole
			if err := json.Unmarshal(request, &o); err != nil {
				return nil, err
			}
			if o.Console == vm.ConsoleVNC {
				return nil, problem.New(problem.InvalidState, "it does not run")
			}
			p, err := b.JoinPipe(o.Session)
			if err != nil {
				return nil, err
			}
			running.Go(func() {
				defer p.Close()
				hello := string(o.Console)
				if o.ReadOnly {
					hello += " to see"
				}
				_, _ = io.WriteString(p, hello)
				if o.Console == vm.ConsoleSerial {
					_, _ = io.Copy(p, p)
				}
			})
			return nil, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); w.server.Drain(); w.server.Drained(); running.Wait() })
}

func TestConsoles(t *testing.T) {
	s := bustest.Server(t)
	b := bustest.On(t, s, bus.Options{})
	w := newWorld(t, func(o *Options) { o.Consoles, o.MaxConsoles = bustest.On(t, s, bus.Options{}), 1 })
	w.post("/api/vms?wait=5", `{"name":"web-1"}`).is(200)
	w.get("/api/vms/web-1/serial/log").problem(problem.Unavailable) // nobody is on the node
	serveConsoles(t, w, b)
	dial := func(path string, header http.Header) (*websocket.Conn, *http.Response, error) {
		if header == nil {
			header = http.Header{"Authorization": {"Bearer admin"}}
		}
		return websocket.Dial(t.Context(), w.http.URL+path, &websocket.DialOptions{HTTPHeader: header})
	}
	for w.get("/api/vms/web-1/serial/log").Status != 200 { // until the node listens
	}
	if r := w.get("/api/vms/web-1/serial/log").is(200); string(r.Body) != "serial_log to see" || r.Header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("log: %q %v", r.Body, r.Header)
	}
	w.get("/api/vms/nobody/serial/log").problem(problem.NotFound)
	w.get("/api/vms/web-1/serial").problem(problem.MalformedRequest)
	upgrade := header{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
	w.call("GET", "/api/vms/web-1/console", "", upgrade).problem(problem.InvalidState)
	w.call("GET", "/api/vms/web-1/serial?read_only=perhaps", "", upgrade).problem(problem.InvalidValue, "query.read_only")
	w.call("GET", "/api/vms/web-1/serial", "", upgrade, header{"Authorization": "Bearer guest"}).problem(problem.Forbidden)
	w.call("GET", "/api/vms/web-1/serial", "", upgrade, header{"Origin": "http://evil.example"}).problem(problem.Forbidden)

	ws, _, err := dial("/api/vms/web-1/serial?read_only=true", nil) //nolint:bodyclose // the connection has it
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow() //nolint:errcheck // closed below
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != "serial to see" {
		t.Errorf("greeted with %q, %v", b, err)
	}
	w.call("GET", "/api/vms/web-1/serial", "", upgrade).problem(problem.TooManyRequests)
	if text := w.get("/metrics").is(200).Body; !strings.Contains(string(text), `horcrux_consoles{console="serial"} 1`) {
		t.Errorf("metrics:\n%s", text)
	}
	if err := ws.Write(t.Context(), websocket.MessageBinary, []byte("echo")); err != nil {
		t.Fatal(err)
	}
	if _, b, err := ws.Read(t.Context()); err != nil || string(b) != "echo" {
		t.Errorf("echoed %q, %v", b, err)
	}
	w.server.Drain()
	if _, _, err := ws.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("drained, it ends with %v", err)
	}
}
