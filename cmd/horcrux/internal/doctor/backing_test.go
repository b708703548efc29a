package doctor

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"horcrux/pkg/pgserver/pgtest"
)

func TestDatabase(t *testing.T) {
	wants(t, database(t.Context(), bench(t, "--database", "postgres://127.0.0.1:1/x")), Fail, "refused", "psql")
	wants(t, database(t.Context(), bench(t, "--database", "no DSN")), Fail, "--database")

	silent := local(t) // takes connections and never answers
	h := bench(t, "--database", "postgres://"+silent.Addr().String()+"/x")
	h.Timeout = 200 * time.Millisecond
	wants(t, h.look(t.Context(), check{look: database}), Fail, "no answer in time")

	wants(t, database(t.Context(), bench(t, "--database", pgtest.Database(t))), OK, "answers on")
}

// The programs of the private one have to fit the data that is there.
func TestPostgresOfAnotherVersion(t *testing.T) {
	h := bench(t)
	data := filepath.Join(h.DataDir, "postgres/data")
	if err := os.MkdirAll(data, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(data, "PG_VERSION"), "9\n", 0o644)
	wants(t, postgresProgram(t.Context(), h), Fail, "version 9", "apt-get install", "postgresql")
	put(t, filepath.Join(data, "PG_VERSION"), "rubbish\n", 0o644)
	wants(t, postgresProgram(t.Context(), h), Fail, "rubbish", "--data-dir")
}

func TestBroker(t *testing.T) {
	start := func(jetstream bool) string {
		s, err := server.NewServer(&server.Options{
			Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true, JetStream: jetstream, StoreDir: t.TempDir(),
		})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		if !s.ReadyForConnections(patience) {
			t.Fatal("NATS does not come up")
		}
		return s.ClientURL()
	}
	wants(t, broker(t.Context(), bench(t, "--nats", start(true))), OK, server.VERSION, "JetStream")
	wants(t, broker(t.Context(), bench(t, "--nats", start(false))), Fail, "JetStream", "--jetstream")
	wants(t, broker(t.Context(), bench(t, "--nats", "nats://127.0.0.1:1")), Fail, "nats-server")
	wants(t, broker(t.Context(), bench(t, "--nats", "nats://127.0.0.1:x")), Fail, "no URL", "--check-config")
	wants(t, broker(t.Context(), bench(t, "--nats", "nats://127.0.0.1:1", "--nats-credentials", "/nonexistent")), Fail, "nonexistent")

	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	h := bench(t, "--nats", "nats://"+silent.Addr().String())
	h.Timeout = 200 * time.Millisecond
	wants(t, h.look(t.Context(), check{look: broker}), Fail)
}
