package system_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/test/instance"
)

// consoleTime is for whatever a guest does under TCG on a busy machine.
const consoleTime = 90 * time.Second

// viewer is an open console, read for as long as it lasts.
type viewer struct {
	*transcript
	ws    *websocket.Conn
	ended chan error
}

// dialConsole opens a WebSocket; a refusal is an error with its answer.
func dialConsole(t *testing.T, i *instance.Instance, path string) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), consoleTime)
	defer cancel()
	return websocket.Dial(ctx, "ws://horcrux"+path, &websocket.DialOptions{HTTPClient: &http.Client{Transport: i.HTTP.Transport}})
}

func watchConsole(t *testing.T, i *instance.Instance, path string) *viewer {
	t.Helper()
	ws, _, err := dialConsole(t, i, path) //nolint:bodyclose // the connection has it
	if err != nil {
		t.Fatal(err)
	}
	ws.SetReadLimit(-1)
	v := &viewer{&transcript{}, ws, make(chan error, 1)}
	go func() { // ends with the console
		for {
			kind, b, err := ws.Read(context.Background())
			if err != nil {
				v.ended <- err
				return
			}
			if kind != websocket.MessageBinary {
				v.ended <- errors.New("a text message")
				return
			}
			_, _ = v.Write(b) // to memory
		}
	}()
	t.Cleanup(func() { _ = ws.CloseNow() })
	return v
}

func (v *viewer) types(t *testing.T, line string) {
	t.Helper()
	if err := v.ws.Write(t.Context(), websocket.MessageBinary, []byte(line)); err != nil {
		t.Fatal(err)
	}
}

func (v *viewer) sees(t *testing.T, what string) {
	t.Helper()
	instance.Eventually(t, consoleTime, "the viewer sees "+what, func() bool { return strings.Contains(v.String(), what) })
}

// closed wants the console to end in order, and returns the reason.
func (v *viewer) closed(t *testing.T, code websocket.StatusCode) string {
	t.Helper()
	select {
	case err := <-v.ended:
		var end websocket.CloseError
		if !errors.As(err, &end) || end.Code != code {
			t.Fatalf("it ended with %v, want %v", err, code)
		}
		return end.Reason
	case <-time.After(consoleTime):
		t.Fatal("it does not end")
		return ""
	}
}

// TestConsoles looks at one guest with a shell in all ways.
func TestConsoles(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	kernel, shell := imageFile(t, i, guest.Kernel(t), "vmlinuz"), imageFile(t, i, guest.Shell(t), "initrd")
	i.Must("POST", "/api/vms", small("c1", map[string]any{
		"memory_mb": 192, "boot": map[string]any{"kernel": kernel, "initrd": shell, "cmdline": "console=ttyS0 quiet panic=-1"},
	}))
	i.Run(t, "what is off has no console, and an empty log", func(t *testing.T) {
		for _, path := range []string{"/api/vms/c1/console", "/api/vms/c1/serial"} {
			_, resp, err := dialConsole(t, i, path) //nolint:bodyclose // it has been read, up to 1 KiB
			if err == nil || resp.StatusCode != http.StatusConflict {
				t.Fatalf("%s: %v %+v", path, err, resp)
			}
			text, err := io.ReadAll(resp.Body)
			if err != nil || !strings.Contains(string(text), `"`+string(problem.InvalidState)+`"`) {
				t.Errorf("%s: %v %s", path, err, text)
			}
			if status, p := i.Problem("GET", path, nil); status != http.StatusBadRequest || p.Code != problem.MalformedRequest {
				t.Errorf("%s without a WebSocket: %d %+v", path, status, p)
			}
		}
		if a := i.Do("GET", "/api/vms/c1/serial/log", nil); a.StatusCode != http.StatusOK || len(a.Bytes) > 0 {
			t.Errorf("log: %d %q", a.StatusCode, a.Bytes)
		}
	})
	i.Must("POST", "/api/vms/c1/start", nil)
	hands := watchConsole(t, i, "/api/vms/c1/serial")
	eyes := watchConsole(t, i, "/api/vms/c1/serial?read_only=true")
	hands.sees(t, guest.Line)
	parts := []struct {
		name string
		try  func(t *testing.T)
	}{
		{"what one types both see, and only one can", func(t *testing.T) {
			eyes.types(t, "echo no-$((40+1))\n")
			hands.types(t, "echo yes-$((40+2))\n")
			hands.sees(t, "yes-42")
			eyes.sees(t, "yes-42")
			if text := hands.String(); strings.Contains(text, "no-") {
				t.Errorf("who only watches has typed:\n%s", text)
			}
		}},
		{"a late viewer is shown the last of it", func(t *testing.T) {
			late := watchConsole(t, i, "/api/vms/c1/serial?read_only=true")
			late.sees(t, "yes-42")
		}},
		{"virsh console is left its own", func(t *testing.T) {
			beside := watchDomains(t, i).console(t, "c1")
			hands.types(t, "echo virsh-$((50+1))\n")
			instance.Eventually(t, consoleTime, "it is seen there", func() bool { return strings.Contains(beside.String(), "virsh-51") })
			hands.sees(t, "virsh-51")
		}},
		{"a viewer who stops reading does not hold the guest up", func(t *testing.T) { stalledViewer(t, i, hands) }},
		{"the command line in a terminal", func(t *testing.T) { consoleInTerminal(t, i) }},
		{"the screen, whole and only watched", func(t *testing.T) { screens(t, i) }},
		{"the metric counts viewers", func(t *testing.T) {
			if text := i.Do("GET", "/metrics", nil).Bytes; !bytes.Contains(text, []byte(`horcrux_consoles{console="serial"} 2`)) {
				t.Errorf("metrics:\n%s", text)
			}
		}},
		{"it ends in order when the guest is destroyed, and the log stays", func(t *testing.T) {
			screen := watchConsole(t, i, "/api/vms/c1/console")
			virsh(t, i, "destroy", "c1")
			for _, v := range []*viewer{hands, eyes, screen} {
				if reason := v.closed(t, websocket.StatusNormalClosure); !strings.Contains(reason, "stopped") {
					t.Errorf("the reason is %q", reason)
				}
			}
			instance.Eventually(t, consoleTime, "it is seen to be off", func() bool {
				var v openapi.VM
				i.Get("/api/vms/c1", &v)
				return v.State == "stopped"
			})
			if r := i.CLI("vm", "log", "c1"); r.Code != 0 || !strings.Contains(r.Out, guest.Line) || !strings.Contains(r.Out, "yes-42") {
				t.Errorf("vm log: %d %s\n%s", r.Code, r.Err, r.Out)
			}
		}},
		{"it ends in order when the server does, and the guest runs on", func(t *testing.T) {
			i.Must("POST", "/api/vms/c1/start", nil)
			v, screen := watchConsole(t, i, "/api/vms/c1/serial"), watchConsole(t, i, "/api/vms/c1/console")
			screen.sees(t, "RFB 003.008\n")
			i.Stop()
			v.closed(t, websocket.StatusGoingAway)
			screen.closed(t, websocket.StatusGoingAway)
			i.Start()
			again := watchConsole(t, i, "/api/vms/c1/serial")
			again.sees(t, guest.Line)
			i.Must("POST", "/api/vms/c1/stop", nil)
			again.closed(t, websocket.StatusNormalClosure)
		}},
		{"the log goes with the machine", func(t *testing.T) {
			logs := func() []string {
				found, err := filepath.Glob(filepath.Join(i.Dir, "consoles", "*"))
				if err != nil {
					t.Fatal(err)
				}
				return found
			}
			if found := logs(); len(found) != 1 {
				t.Fatalf("logs %q", found)
			}
			i.Must("DELETE", "/api/vms/c1", nil)
			if found := logs(); len(found) != 0 {
				t.Errorf("left behind: %q", found)
			}
		}},
	}
	for _, p := range parts {
		i.Run(t, p.name, p.try)
		if t.Failed() {
			text := hands.String()
			t.Logf("seen last by hand:\n%s", text[max(0, len(text)-2000):])
			return
		}
	}
}

// stalledViewer has a viewer that reads nothing while the guest says much more than all that lies between them holds.
func stalledViewer(t *testing.T, i *instance.Instance, hands *viewer) {
	stalled, _, err := dialConsole(t, i, "/api/vms/c1/serial?read_only=true") //nolint:bodyclose // the connection has it
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.CloseNow() //nolint:errcheck // it is meant to be broken
	hands.types(t, "busybox dd if=/dev/zero bs=1k count=600 2>/dev/null | busybox tr '\\0' x; echo; echo said-$((60+1))\n")
	hands.sees(t, "said-61")
	files, err := filepath.Glob(filepath.Join(i.Dir, "consoles", "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("logs %q, %v", files, err)
	}
	if info, err := os.Stat(files[0]); err != nil || info.Size() < 600<<10 {
		t.Errorf("the hypervisor's log: %v, %v", info, err)
	}
}

// screens looks at the handshake through the WebSocket and through the command line's socket.
func screens(t *testing.T, i *instance.Instance) {
	v := watchConsole(t, i, "/api/vms/c1/console?read_only=true")
	v.sees(t, "RFB 003.008\n")
	v.types(t, "RFB 003.008\n")
	v.sees(t, "RFB 003.008\n\x01\x01") // one security type: none
	v.types(t, "\x01\x00")             // which is taken, and the screen wanted alone
	instance.Eventually(t, consoleTime, "the screen says what it is", func() bool { return strings.Contains(v.String(), "QEMU (c1)") })
	v.types(t, "\x04\x01\x00\x00\x00\x00\x00\x20\x09") // a key, which is dropped, and a message that nobody knows
	if reason := v.closed(t, websocket.StatusPolicyViolation); !strings.Contains(reason, "type 9") {
		t.Errorf("the reason is %q", reason)
	}

	socket := filepath.Join(t.TempDir(), "v")
	cmd := i.Command(t.Context(), "vm", "vnc", "c1", "--listen", socket)
	var said transcript
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("vm vnc: %v\n%s", err, &said)
		}
	}()
	instance.Eventually(t, consoleTime, "it says where it listens", func() bool { return strings.Contains(said.String(), socket) })
	var viewers sync.WaitGroup
	defer viewers.Wait()
	for range 2 {
		viewers.Go(func() {
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			hello := make([]byte, 12)
			if _, err := io.ReadFull(conn, hello); err != nil || string(hello) != "RFB 003.008\n" {
				t.Errorf("it says %q, %v", hello, err)
			}
		})
	}
}
