package serve

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/cmd/horcrux/internal/build"
	"horcrux/cmd/horcrux/internal/config"
	"horcrux/cmd/horcrux/internal/datadir"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dataDir is the path of a data dir to be, which the users of Postgres and QEMU could get to.
func dataDir(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "hx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "data")
}

// TestMistakesStartNothing: what can be known to go wrong is said before there is a Postgres.
func TestMistakesStartNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	elsewhere := func(c *config.Config) {
		c.Database, c.NATS.URL = "host="+t.TempDir(), "nats://127.0.0.1:1"
	}
	for what, c := range map[string]struct {
		change func(*config.Config)
		want   []string
	}{
		"a port that is taken": {
			func(c *config.Config) { c.Listen = taken.Addr().String() },
			[]string{"port " + port + " is in use", "--listen"},
		},
		"compute alone": {
			func(c *config.Config) { elsewhere(c); c.Services = []string{"api", "compute"} },
			[]string{"compute and storage", "--node-id, such as "},
		},
		"storage alone": {
			func(c *config.Config) { elsewhere(c); c.Services = []string{"storage"} },
			[]string{"compute and storage", "--node-id, such as "},
		},
	} {
		t.Run(what, func(t *testing.T) {
			conf := config.Default()
			conf.DataDir, conf.Listen = dataDir(t), "127.0.0.1:0"
			c.change(conf)
			var said strings.Builder
			err := Run(t.Context(), *conf, slog.New(slog.DiscardHandler), &said)
			if err == nil {
				t.Fatal("it ran, and ended without an error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "\n") || said.Len() > 0 {
				t.Errorf("more than a sentence: %q, and %q", err, &said)
			}
			d, err := datadir.Open(conf.DataDir) // nobody has it any more
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(d.Postgres()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("there is a Postgres: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := &server{config: *config.Default()}
	s.config.Listen = taken.Addr().String()
	s.config.Services = []string{"compute", "storage"}
	if err := s.port(t.Context()); err != nil {
		t.Errorf("a process without the gateway minds its port: %v", err)
	}
	s.config.Services = config.Services
	if err := s.port(t.Context()); err == nil {
		t.Error("the port is taken and nobody says so")
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is free again after the look
		if err := s.port(t.Context()); err != nil {
			t.Error(err)
		}
	}
	s.config.Listen = ""
	if err := s.port(t.Context()); err != nil {
		t.Errorf("no port was asked for: %v", err)
	}
}

func TestAddress(t *testing.T) {
	s := &server{config: *config.Default()}
	if got := s.address(); (got != "") != build.Built("ssl") {
		t.Errorf("by default %q, and TLS is built in: %t", got, build.Built("ssl"))
	}
	s.config.Listen = "127.0.0.1:1"
	if got := s.address(); got != "127.0.0.1:1" {
		t.Errorf("got %q where one was asked for", got)
	}
}

func TestIdentify(t *testing.T) {
	shared := uuid.MustParse("01900000-0000-7000-8000-000000000001")
	identify := func(t *testing.T, dir *datadir.Dir, id uuid.UUID, services ...string) uuid.UUID {
		t.Helper()
		s := &server{dir: dir, config: *config.Default()}
		s.config.Node.ID, s.config.Services = id, services
		if err := s.identify(context.Background()); err != nil {
			t.Fatal(err)
		}
		return s.node
	}
	t.Run("of the data dir, made once", func(t *testing.T) {
		dir := &datadir.Dir{Root: t.TempDir()}
		id := identify(t, dir, uuid.Nil, config.Services...)
		if id == uuid.Nil || identify(t, dir, uuid.Nil, "compute", "storage") != id || identify(t, dir, uuid.Nil, "api") != id {
			t.Errorf("not always %s", id)
		}
		if other := identify(t, &datadir.Dir{Root: t.TempDir()}, uuid.Nil, config.Services...); other == id {
			t.Error("two data dirs have one id")
		}
	})
	t.Run("of the configuration, for each process of a host", func(t *testing.T) {
		dir := &datadir.Dir{Root: t.TempDir()}
		if err := os.WriteFile(dir.NodeID(), []byte("lost\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, service := range config.Services {
			if got := identify(t, dir, shared, service); got != shared {
				t.Errorf("%s is on %s", service, got)
			}
		}
	})
	t.Run("that cannot be read is not made anew", func(t *testing.T) {
		s := &server{dir: &datadir.Dir{Root: t.TempDir()}, config: *config.Default()}
		if err := os.WriteFile(s.dir.NodeID(), []byte("lost\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := s.identify(t.Context()); err == nil || !strings.Contains(err.Error(), s.dir.NodeID()) {
			t.Errorf("got %v", err)
		}
	})
}
