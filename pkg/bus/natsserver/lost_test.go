package natsserver_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"horcrux/pkg/bus"
	"horcrux/pkg/events"
)

var address = events.Address{Domain: "compute", Node: events.AnyNode}

func command() events.Command {
	return events.Command{ID: events.NewID(), To: address, Type: "vm.start", Target: uuid.New(), Deadline: time.Now().Add(time.Hour)}
}

// eventually tries until f succeeds.
func eventually(t *testing.T, what string, f func(context.Context) error) {
	t.Helper()
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = f(ctx)
		cancel()
		if err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// comes publishes a command and waits until it is consumed.
func comes(t *testing.T, b *bus.Bus) {
	t.Helper()
	cmd := command()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	eventually(t, "publish a command", func(ctx context.Context) error { return b.Publish(ctx, cmd, 0) })
	came := false
	err := b.Consume(ctx, []events.Address{address}, func(_ context.Context, c events.Command) (bus.Decision, error) {
		if c.ID == cmd.ID {
			came = true
			cancel()
		}
		return bus.Decision{Command: c.ID}, nil
	})
	if err != nil || !came {
		t.Fatalf("the command did not come: %v", err)
	}
}

// A server whose store is deleted under it writes on to what nobody will ever read: it is started anew.
func TestStoreIsDeleted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "nats")
	s := start(t, dir)
	defer s.Shutdown()
	b, nc := open(t, s)
	defer nc.Close()
	for range 3 {
		comes(t, b)
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a new store", func(context.Context) error { _, err := os.Stat(filepath.Join(dir, "jetstream")); return err })
	}
	comes(t, b)
	streams, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "*"))
	if err != nil || len(streams) == 0 {
		t.Errorf("the store has no streams: %v", err)
	}
}

// A server that met a full disk writes again once there is room.
func TestDiskIsFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("horcrux-test", dir, "tmpfs", 0, "size=8m"); err != nil {
		t.Skipf("real: mount: no tmpfs: %v", err)
	}
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	}()
	s := start(t, filepath.Join(dir, "nats"))
	defer s.Shutdown()
	b, nc := open(t, s)
	defer nc.Close()
	for range 3 {
		comes(t, b)
		filler := filepath.Join(dir, "filler")
		err := os.WriteFile(filler, make([]byte, 16<<20), 0o600) // as much as there is room
		if err == nil {
			t.Fatal("the disk has room for all that")
		}
		eventually(t, "a refusal", func(ctx context.Context) error {
			cmd := command()
			cmd.Data = []byte(`"` + strings.Repeat("x", 16<<10) + `"`)
			if err := b.Publish(ctx, cmd, 0); err != nil {
				return nil //nolint:nilerr // which is what is waited for
			}
			return os.ErrExist
		})
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	comes(t, b)
}
