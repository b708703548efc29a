package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a service on a bus, with a hypervisor that says whatever the test wants.
type node struct {
	t    *testing.T
	bus  *bus.Bus // of the viewers
	id   uuid.UUID
	stop func()

	mu  sync.Mutex
	at  hypervisor.Consoles
	err error
}

func (n *node) Consoles(context.Context, uuid.UUID) (hypervisor.Consoles, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.at, n.err
}

func (n *node) is(at hypervisor.Consoles, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.at, n.err = at, err
}

func start(t *testing.T, o Options) *node {
	t.Helper()
	s := bustest.Server(t)
	n := &node{t: t, bus: bustest.On(t, s, bus.Options{}), id: uuid.New()}
	o.Node, o.Bus, o.Driver, o.Log = n.id, bustest.On(t, s, bus.Options{}), n, bustest.Quiet
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := New(o).Run(ctx); err != nil {
			t.Error(err)
		}
	})
	n.stop = func() { cancel(); running.Wait() }
	t.Cleanup(n.stop)
	eventually(t, "the node answers", func() bool {
		_, err := n.open(vm.OpenConsole{})
		return !errors.Is(err, &problem.Problem{Code: problem.Unavailable})
	})
	return n
}

func (n *node) open(o vm.OpenConsole) (*bus.Pipe, error) {
	n.t.Helper()
	o.Session = uuid.New()
	p, err := n.bus.OpenPipe(o.Session)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if err := n.bus.Call(ctx, vm.Resource.Domain, n.id, vm.ConsoleMethod, o, nil); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	n.t.Cleanup(func() {
		if err := p.Close(); err != nil {
			n.t.Error(err)
		}
	})
	return p, nil
}

func (n *node) must(console vm.Console, readOnly bool) *bus.Pipe {
	n.t.Helper()
	p, err := n.open(vm.OpenConsole{Console: console, ReadOnly: readOnly})
	if err != nil {
		n.t.Fatal(err)
	}
	return p
}

const patience = time.Minute

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// reads wants the next bytes of a console to be these.
func reads(t testing.TB, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got[:n], err, want)
	}
}

func says(t testing.TB, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// line is a serial line as QEMU makes it: a terminal whose other end is the guest, and a log that the guest's words go to
// as well.
type line struct {
	t      testing.TB
	master *os.File
	at     hypervisor.Consoles
}

func newLine(t testing.TB) *line {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var number int
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0)
		mode, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
		if err == nil { // as cfmakeraw does
			mode.Iflag, mode.Oflag, mode.Lflag = 0, 0, 0
			err = unix.IoctlSetTermios(int(fd), unix.TCSETS, mode)
		}
		failed = errors.Join(failed, err)
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		failed = errors.Join(failed, err)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	l := &line{t, master, hypervisor.Consoles{
		Active: true, Serial: fmt.Sprintf("/dev/pts/%d", number), SerialLog: filepath.Join(t.TempDir(), "x.log"),
	}}
	write(t, l.at.SerialLog, "")
	return l
}

func (l *line) says(text string) {
	l.t.Helper()
	write(l.t, l.at.SerialLog, text)
	says(l.t, l.master, text)
}

func (l *line) hears(want string) { l.t.Helper(); reads(l.t, l.master, want) }

func TestSerial(t *testing.T) {
	n, l := start(t, Options{}), newLine(t)
	n.is(l.at, nil)
	write(t, l.at.SerialLog, strings.Repeat("long ago ", before)+strings.Repeat("\x1b[6n", 2)+"login: ")
	hands, eyes := n.must(vm.ConsoleSerial, false), n.must(vm.ConsoleSerial, true)
	for _, p := range []*bus.Pipe{hands, eyes} {
		shown := strings.Repeat("long ago ", before)
		reads(t, p, shown[len(shown)-(before-15):]+"login: ") // without what asks the terminal something
	}
	says(t, eyes, "rm -rf /\n")
	says(t, hands, "root\n")
	l.hears("root\n")
	l.says("root\r\n\x1b[6n# ")
	for _, p := range []*bus.Pipe{hands, eyes} {
		reads(t, p, "root\r\n\x1b[6n# ") // what is asked now is
	}

	t.Run("another reader of the terminal is left what it says", func(t *testing.T) {
		other, err := os.OpenFile(l.at.Serial, os.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		text := strings.Repeat("to you. ", 100)
		heard := make(chan error, 1)
		go func() { // ends with the terminal
			b := make([]byte, 4096)
			for all := ""; !strings.HasSuffix(all, text); {
				k, err := other.Read(b)
				if all += string(b[:k]); err != nil {
					heard <- err
					return
				}
			}
			heard <- nil
		}()
		l.says(text)
		if err := <-heard; err != nil {
			t.Error(err)
		}
		reads(t, hands, text)
		reads(t, eyes, text)
	})
	t.Run("a viewer that does not read holds nobody up, and is told what it missed", func(t *testing.T) {
		for range 3 * 64 { // through a terminal that holds a few KiB
			l.says(strings.Repeat("n", Window/64))
		}
		l.says("END")
		missed := 0
		var got strings.Builder
		b := make([]byte, 32<<10)
		for !strings.HasSuffix(got.String(), "END") {
			k, err := eyes.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got.Write(b[:k])
		}
		_, told, _ := strings.Cut(got.String(), "\r\n[")
		if _, err := fmt.Sscanf(told, "%d bytes were said too fast", &missed); err != nil || missed == 0 {
			t.Errorf("it is told %.100q", told)
		}
		if all := strings.Count(got.String(), "n") - strings.Count("bytes were said too fast for this viewer", "n") + missed; all != 3*Window {
			t.Errorf("%d bytes of %d are accounted for", all, 3*Window)
		}
	})
	t.Run("it ends when the hypervisor gives the line up, with the last word", func(t *testing.T) {
		go func() { _, _ = io.Copy(io.Discard, hands) }() // ends with the pipe
		write(t, l.at.SerialLog, "Oops")
		if err := l.master.Close(); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(eyes); string(got) != "Oops" || err != nil {
			t.Errorf("the last is %q, %v", got, err)
		}
		<-hands.Done()
	})
}

func TestLog(t *testing.T) {
	n := start(t, Options{})
	path := filepath.Join(t.TempDir(), "x.log")
	n.is(hypervisor.Consoles{SerialLog: path}, nil)
	for range 2 {
		if got, err := io.ReadAll(n.must(vm.ConsoleSerialLog, true)); len(got) != 0 || err != nil {
			t.Errorf("a log of nothing is %q, %v", got, err)
		}
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), Window/8)
	write(t, path, string(text))
	if got, err := io.ReadAll(n.must(vm.ConsoleSerialLog, true)); !bytes.Equal(got, text[Window:]) || err != nil {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// rfb listens as QEMU does, on a path that is too long for the kernel to take as it is.
func rfb(t *testing.T) (net.Listener, hypervisor.Consoles) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	folder, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	l, err := net.Listen("unix", fmt.Sprintf("/proc/self/fd/%d/vnc.sock", folder.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, hypervisor.Consoles{Active: true, VNC: filepath.Join(dir, "vnc.sock")}
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestScreen(t *testing.T) {
	n := start(t, Options{})
	l, at := rfb(t)
	n.is(at, nil)
	t.Run("whole", func(t *testing.T) {
		p := n.must(vm.ConsoleVNC, false)
		server := accept(t, l)
		says(t, server, "RFB 003.008\n")
		reads(t, p, "RFB 003.008\n")
		says(t, p, greeting+key)
		reads(t, server, greeting+key)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if rest, err := io.ReadAll(server); len(rest) > 0 || err != nil {
			t.Errorf("the server sees %q, %v", rest, err)
		}
	})
	t.Run("watched", func(t *testing.T) {
		p := n.must(vm.ConsoleVNC, true)
		server := accept(t, l)
		says(t, p, greeting+key+update)
		reads(t, server, greeted+update)
		says(t, p, "\x09")
		if _, err := io.ReadAll(p); !errors.Is(err, &problem.Problem{Code: problem.Forbidden}) {
			t.Errorf("it ends with %v", err)
		}
		if rest, err := io.ReadAll(server); len(rest) > 0 || err != nil {
			t.Errorf("the server sees %q, %v", rest, err)
		}
	})
	t.Run("a viewer that does not read bounds what is read from the hypervisor", func(t *testing.T) {
		p := n.must(vm.ConsoleVNC, false)
		server := accept(t, l)
		sent := 0
		for { // until nothing is taken any more
			if err := server.SetWriteDeadline(time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
			k, err := server.Write(make([]byte, 64<<10))
			if sent += k; err != nil {
				break
			}
			if sent > 4<<20 {
				t.Fatal("4 MiB are on their way to a viewer that does not read")
			}
		}
		if _, err := io.CopyN(io.Discard, p, int64(sent)); err != nil {
			t.Error(err)
		}
	})
	t.Run("it ends with the guest, or says that the guest has not ended", func(t *testing.T) {
		p := n.must(vm.ConsoleVNC, false)
		accept(t, l).Close()
		if _, err := io.ReadAll(p); !errors.Is(err, &problem.Problem{Code: problem.InvalidState}) {
			t.Errorf("it ends with %v", err)
		}
		p = n.must(vm.ConsoleVNC, false)
		n.is(hypervisor.Consoles{}, nil)
		accept(t, l).Close()
		if _, err := io.ReadAll(p); err != nil {
			t.Errorf("it ends with %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	n := start(t, Options{})
	for name, tc := range map[string]struct {
		console vm.Console
		at      hypervisor.Consoles
		err     error
		code    problem.Code
	}{
		"off":           {vm.ConsoleVNC, hypervisor.Consoles{SerialLog: "/x"}, nil, problem.InvalidState},
		"no screen":     {vm.ConsoleVNC, hypervisor.Consoles{Active: true}, nil, problem.InvalidState},
		"just stopped":  {vm.ConsoleVNC, hypervisor.Consoles{Active: true, VNC: filepath.Join(t.TempDir(), "x")}, nil, problem.InvalidState},
		"no serial":     {vm.ConsoleSerial, hypervisor.Consoles{Active: true}, nil, problem.InvalidState},
		"line is gone":  {vm.ConsoleSerial, hypervisor.Consoles{Active: true, Serial: "/dev/pts/none", SerialLog: "/x"}, nil, problem.InvalidState},
		"no log":        {vm.ConsoleSerialLog, hypervisor.Consoles{Active: true}, nil, problem.InvalidState},
		"unknown":       {vm.ConsoleVNC, hypervisor.Consoles{}, hypervisor.ErrNotFound, problem.InvalidState},
		"daemon is off": {vm.ConsoleVNC, hypervisor.Consoles{}, hypervisor.ErrUnavailable, problem.HypervisorUnavailable},
		"other failure": {vm.ConsoleVNC, hypervisor.Consoles{}, errors.New("the driver's own words"), problem.Internal},
		"no such thing": {"hologram", hypervisor.Consoles{Active: true}, nil, problem.InvalidValue},
	} {
		n.is(tc.at, tc.err)
		_, err := n.open(vm.OpenConsole{Console: tc.console})
		if p := problem.From(err); p == nil || p.Code != tc.code || strings.Contains(p.Detail, "own words") {
			t.Errorf("%s: %v, want %s", name, err, tc.code)
		}
	}
}

func TestBoundsAndStop(t *testing.T) {
	n, l := start(t, Options{Sessions: 2}), newLine(t)
	n.is(l.at, nil)
	first, second := n.must(vm.ConsoleSerial, false), n.must(vm.ConsoleSerial, false)
	if _, err := n.open(vm.OpenConsole{Console: vm.ConsoleSerial}); !errors.Is(err, &problem.Problem{Code: problem.TooManyRequests}) {
		t.Errorf("a third: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is a place again", func() bool {
		p, err := n.open(vm.OpenConsole{Console: vm.ConsoleSerial})
		if err == nil {
			first = p
		}
		return err == nil
	})
	n.stop()
	for _, p := range []*bus.Pipe{first, second} {
		if _, err := io.ReadAll(p); !errors.Is(err, &problem.Problem{Code: problem.Unavailable}) {
			t.Errorf("when the service stops: %v", err)
		}
	}
}
