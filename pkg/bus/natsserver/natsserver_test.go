package natsserver_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/bus/natsserver"
	"horcrux/pkg/events"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, dir string) *natsserver.Server {
	t.Helper()
	s, err := natsserver.Start(natsserver.Options{StoreDir: dir, Log: bustest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, s *natsserver.Server) (*bus.Bus, *nats.Conn) {
	t.Helper()
	nc, err := s.Conn("test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := bus.New(nc, bus.Options{Log: bustest.Quiet})
	if err != nil {
		t.Fatal(err)
	}
	return b, nc
}

// A command that was published and not taken is there after the server's restart.
func TestCommandsOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	to := events.Address{Domain: "compute", Node: events.AnyNode}
	cmd := events.Command{ID: events.NewID(), To: to, Type: "vm.start", Target: uuid.New(), Deadline: time.Now().Add(time.Minute)}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	s := start(t, dir)
	b, nc := open(t, s)
	if err := b.EnsureStreams(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Publish(ctx, cmd, 0); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	s.Shutdown()

	s = start(t, dir)
	defer s.Shutdown()
	b, nc = open(t, s)
	defer nc.Close()
	ctx, stop := context.WithCancel(ctx)
	var got []uuid.UUID
	err := b.Consume(ctx, []events.Address{to}, func(_ context.Context, c events.Command) (bus.Decision, error) {
		got = append(got, c.ID)
		stop()
		return bus.Decision{Command: c.ID}, nil
	})
	if err != nil || len(got) != 1 || got[0] != cmd.ID {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestNothingListens(t *testing.T) {
	s := start(t, t.TempDir())
	defer s.Shutdown()
	inodes := map[string]bool{} // of sockets that listen, on the whole host
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		sockets, err := os.ReadFile(table)
		if err != nil {
			t.Skipf("sockets cannot be listed here: %v", err)
		}
		for line := range strings.Lines(string(sockets)) {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" {
				inodes["socket:["+f[9]+"]"] = true
			}
		}
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && inodes[target] {
			t.Errorf("this process listens: %s", target)
		}
	}
}

func TestStartFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"NoStoreDir": "", "StoreDirIsAFile": file} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			s, err := natsserver.Start(natsserver.Options{StoreDir: dir, Log: bustest.Quiet})
			if err == nil {
				s.Shutdown()
				t.Fatal("it started")
			}
			if time.Since(began) > 10*time.Second {
				t.Errorf("it took %s to say: %v", time.Since(began), err)
			}
			t.Log(err)
		})
	}
}
