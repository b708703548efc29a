package cli

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/spf13/cobra"

	"horcrux/pkg/problem"
)

func TestTyping(t *testing.T) {
	for in, want := range map[string]struct {
		sent string
		left bool
	}{
		"ls\n":             {"ls\n", false},
		"ls\n\x1dmore":     {"ls\n", true},
		"\x1d":             {"", true},
		"\x03\x04\x1a\x1b": {"\x03\x04\x1a\x1b", false},
	} {
		for range 2 {
			var sent bytes.Buffer
			if err := typing(iotest.OneByteReader(strings.NewReader(in)), &sent); errors.Is(err, errLeft) != want.left || sent.String() != want.sent {
				t.Errorf("%q sends %q, %v", in, sent.String(), err)
			}
		}
	}
}

func TestListenHere(t *testing.T) {
	for address, good := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, t.TempDir() + "/v": true, "0.0.0.0:0": false, "localhost": false, "192.0.2.1:5900": false, ":5900": false,
	} {
		l, err := listenHere(&cobra.Command{}, address)
		if (err == nil) != good {
			t.Errorf("%s: %v", address, err)
		}
		if err == nil {
			l.Close()
		}
	}
	if got := viewerAddress(&net.TCPAddr{IP: net.ParseIP("127.0.0.1"), Port: 5901}); got != "127.0.0.1::5901" {
		t.Errorf("a viewer is told %s", got)
	}
}

func TestConsoleCommands(t *testing.T) {
	off := problem.New(problem.InvalidState, "the virtual machine does not run")
	if r := horcrux(t, []exchange{refuse("GET /api/vms/web-1/serial", off)}, "vm", "console", "web-1", "--read-only"); r.code != off.Code.Exit() ||
		!strings.Contains(r.err, off.Detail) || r.asked[0] != "GET /api/vms/web-1/serial?read_only=true" {
		t.Errorf("console: %+v", r)
	}
	if r := horcrux(t, []exchange{refuse("GET /api/vms/nobody", problem.New(problem.NotFound, "there is no vm"))}, "vm", "vnc", "nobody"); r.code != problem.NotFound.Exit() {
		t.Errorf("vnc: %+v", r)
	}
	said := exchange{"GET /api/vms/web-1/serial/log", 200, "application/octet-stream", "login: \x1b[6n"}
	if r := horcrux(t, []exchange{said}, "vm", "log", "web-1"); r.code != 0 || r.out != said.body {
		t.Errorf("log: %+v", r)
	}
}
