package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/api/console"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = time.Minute

// world is a gateway with one route, and a node whose end of each console the test has.
type world struct {
	t       *testing.T
	url     string
	drain   chan struct{}
	drained func()
	opened  chan *bus.Pipe
	refuse  atomic.Pointer[problem.Problem]
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s := bustest.Server(t)
	here, there, node := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{}), uuid.New()
	w := &world{t: t, drain: make(chan struct{}), opened: make(chan *bus.Pipe, 1)}
	w.drained = sync.OnceFunc(func() { close(w.drain) })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		err := there.Serve(ctx, vm.Resource.Domain, node, vm.ConsoleMethod, func(_ context.Context, request json.RawMessage) (any, error) {
			var o vm.OpenConsole
			if err := json.Unmarshal(request, &o); err != nil {
				return nil, err
			}
			if no := w.refuse.Load(); no != nil {
				return nil, no
			}
			p, err := there.JoinPipe(o.Session)
			if err == nil {
				w.opened <- p
			}
			return nil, err
		})
		if err != nil {
			t.Error(err)
		}
	})
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		if err := console.Upgradable(r); err != nil {
			http.Error(rw, err.Error(), problem.From(err).Code.Status())
			return
		}
		p, err := console.Open(r.Context(), here, node, vm.OpenConsole{VM: uuid.New(), Console: vm.ConsoleSerial})
		if err != nil {
			http.Error(rw, err.Error(), http.StatusConflict)
			return
		}
		ws, err := websocket.Accept(rw, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		if err := console.Carry(ws, p, w.drain); err != nil {
			t.Error(err)
		}
	}))
	w.url = server.URL
	t.Cleanup(func() {
		w.drained()
		server.Close()
		cancel()
		running.Wait()
	})
	return w
}

// open opens a console: the viewer's end, and the node's.
func (w *world) open() (*websocket.Conn, *bus.Pipe) {
	w.t.Helper()
	for end := time.Now().Add(patience); ; {
		ws, _, err := websocket.Dial(w.t.Context(), w.url, nil) //nolint:bodyclose // the connection has it
		if err == nil {
			p := <-w.opened
			w.t.Cleanup(func() {
				_ = ws.CloseNow()
				if err := p.Close(); err != nil {
					w.t.Error(err)
				}
			})
			return ws, p
		}
		if time.Now().After(end) { // the node does not listen yet
			w.t.Fatal(err)
		}
	}
}

// ended reads a viewer's end to its close frame.
func ended(t *testing.T, ws *websocket.Conn) (said string, end websocket.CloseError) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		_, b, err := ws.Read(ctx)
		if said += string(b); err != nil {
			if !errors.As(err, &end) {
				t.Fatalf("it ends with %v", err)
			}
			return said, end
		}
	}
}

func TestCarry(t *testing.T) {
	t.Run("both directions, in messages of any size and kind", func(t *testing.T) {
		ws, node := newWorld(t).open()
		long := strings.Repeat("0123456789", 20_000)
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := errors.Join(ws.Write(t.Context(), websocket.MessageBinary, []byte(long)), ws.Write(t.Context(), websocket.MessageText, []byte("text"))); err != nil {
				t.Error(err)
			}
		})
		got := make([]byte, len(long)+4)
		if _, err := io.ReadFull(node, got); err != nil || string(got) != long+"text" {
			t.Errorf("the node has %d bytes, %v", len(got), err)
		}
		sending.Wait()
		if _, err := node.Write([]byte("back")); err != nil {
			t.Fatal(err)
		}
		if kind, b, err := ws.Read(t.Context()); kind != websocket.MessageBinary || string(b) != "back" || err != nil {
			t.Errorf("the viewer has %v %q, %v", kind, b, err)
		}
		if err := ws.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(node); err != nil {
			t.Errorf("the node is told %v", err)
		}
	})
	t.Run("it is closed with the reason, after the last word", func(t *testing.T) {
		w := newWorld(t)
		for _, tc := range []struct {
			why    *problem.Problem
			code   websocket.StatusCode
			reason string
		}{
			{nil, websocket.StatusNormalClosure, "the virtual machine has stopped"},
			{problem.New(problem.InvalidState, "refused"), websocket.StatusNormalClosure, "refused"},
			{problem.New(problem.Forbidden, "it typed"), websocket.StatusPolicyViolation, "it typed"},
			{problem.New(problem.Unavailable, "stopping"), websocket.StatusGoingAway, "stopping"},
			{problem.New(problem.Internal, "%s", strings.Repeat("ä", 100)), websocket.StatusInternalError, strings.Repeat("ä", 60) + "…"},
		} {
			ws, node := w.open()
			if _, err := node.Write([]byte("Oops")); err != nil {
				t.Fatal(err)
			}
			if err := node.End(tc.why); err != nil {
				t.Fatal(err)
			}
			if said, end := ended(t, ws); said != "Oops" || end.Code != tc.code || end.Reason != tc.reason {
				t.Errorf("%v: it said %q and ended with %+v", tc.why, said, end)
			}
		}
	})
	t.Run("it is closed when the gateway is drained, also for a viewer who sends into the void", func(t *testing.T) {
		w := newWorld(t)
		quiet, _ := w.open()
		loud, _ := w.open()
		go func() { // ends with the connection
			for loud.Write(context.Background(), websocket.MessageBinary, make([]byte, 32<<10)) == nil {
			}
		}()
		w.drained()
		for _, ws := range []*websocket.Conn{quiet, loud} {
			if _, end := ended(t, ws); end.Code != websocket.StatusGoingAway {
				t.Errorf("it ends with %+v", end)
			}
		}
	})
	t.Run("a viewer who does not read stops the node, and holds no memory", func(t *testing.T) {
		w := newWorld(t)
		ws, node := w.open()
		var written atomic.Int64
		var writing sync.WaitGroup
		writing.Go(func() {
			block := make([]byte, 32<<10)
			for {
				n, err := node.Write(block)
				if written.Add(int64(n)); err != nil {
					return
				}
			}
		})
		last := int64(-1)
		for now := written.Load(); now != last; now = written.Load() { // until a second brings nothing more
			last = now
			time.Sleep(time.Second)
		}
		if last > 16<<20 { // sockets hold some megabytes, we 256 KiB
			t.Errorf("%d bytes are on their way", last)
		}
		_ = ws.CloseNow()
		writing.Wait()
	})
}

func TestRefusals(t *testing.T) {
	w := newWorld(t)
	w.open()
	w.refuse.Store(problem.New(problem.InvalidState, "it does not run"))
	if _, resp, err := websocket.Dial(t.Context(), w.url, nil); err == nil || resp.StatusCode != http.StatusConflict { //nolint:bodyclose // it has been read
		t.Errorf("refused: %v %+v", err, resp)
	}
	for name, tc := range map[string]struct {
		header http.Header
		status int
	}{
		"no WebSocket": {http.Header{}, http.StatusBadRequest},
		"of another site": {http.Header{
			"Connection": {"keep-alive, Upgrade"}, "Upgrade": {"WebSocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
			"Origin": {"https://evil.example"},
		}, http.StatusForbidden},
		"an old version": {http.Header{
			"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"8"}, "Sec-Websocket-Key": {"AAAAAAAAAAAAAAAAAAAAAA=="},
		}, http.StatusBadRequest},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = tc.header
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%s: %d", name, resp.StatusCode)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
