package system_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/pgserver/pgtest"
	"horcrux/test/instance"
)

// TestParts runs the gateway in one process and compute and storage in another, each with a data dir of its own, on a
// Postgres and a NATS that exist already. Each of them is lost in the middle of something.
func TestParts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts daemons")
	}
	pg := pgtest.Server(t)
	broker := &broker{t: t, dir: t.TempDir()}
	broker.start()
	t.Cleanup(broker.stop)
	part := func(services string, args ...string) *instance.Instance {
		i := newInstance(t, binary, append([]string{"--services", services, "--database", pg.DSN(), "--nats", broker.url("password")}, args...)...)
		i.Part = true
		return i
	}
	worker := part("compute,storage", "--node-name", "w1", "--libvirt-private", "yes", "--accelerator", "tcg")
	api := part("api", "--listen", "127.0.0.1:0")
	t.Cleanup(func() { // before the parts end: what they made needs both
		if worker.Pid() == 0 {
			worker.Launch()
		}
		if api.Pid() == 0 {
			api.Start()
		}
		api.DeleteVMs()
	})
	run := func(name string, f func(*testing.T)) { api.Run(t, name, f) }

	run("refused without the others, or without the password", func(t *testing.T) {
		r := api.CLI("serve", "--services", "api")
		if r.Code == 0 || !strings.Contains(r.Err, "--nats") || !strings.Contains(r.Err, "--database") {
			t.Errorf("%d %s", r.Code, r.Err)
		}
		r = api.CLI("serve", "--services", "api", "--listen", "127.0.0.1:0", "--database", pg.DSN(), "--nats", broker.url("wrong"))
		if r.Code == 0 || !strings.Contains(r.Err, "--nats") || strings.Contains(r.Err, "wrong@") {
			t.Errorf("%d %s", r.Code, r.Err)
		}
	})

	api.Launch()
	run("a gateway alone says what it lacks", func(t *testing.T) {
		instance.Eventually(t, 30*time.Second, "it answers", func() bool {
			r, err := api.Try("GET", "/readyz", nil)
			return err == nil && strings.Contains(string(r.Bytes), "no compute service has been heard of")
		})
	})
	worker.Launch()
	run("the gateway tells how the others do", func(t *testing.T) {
		instance.Eventually(t, 30*time.Second, "it is ready", func() bool {
			r := api.Readiness()
			return r["hypervisor@w1"] && r["storage@w1"] && api.Do("GET", "/readyz", nil).StatusCode == http.StatusOK
		})
	})
	run("the thin path", func(t *testing.T) {
		instance.Eventually(t, 30*time.Second, "the pool is there", func() bool {
			return api.Do("GET", "/api/storage/pools/local", nil).StatusCode == http.StatusOK
		})
		op := api.Must("POST", "/api/vms", small("t1", map[string]any{"node": "w1", "start": true, "disks": []any{map[string]any{"size_gb": 1}}}))
		if state := virsh(t, worker, "domstate", "t1"); state != "running" || len(volumeFiles(t, worker)) != 1 {
			t.Errorf("the domain is %s, the files are %q", state, volumeFiles(t, worker))
		}
		var h openapi.History
		api.Get("/api/vms/t1/history", &h)
		want := []string{"vm.create_requested", "vm.define_requested", "vm.created", "vm.start_requested", "vm.started"}
		if got := types(h.Items); !slices.Equal(got, want) || *h.Items[4].Operation != op.ID {
			t.Errorf("history %q", got)
		}
		var then openapi.VM
		if api.Get("/api/vms/t1?at="+h.Items[2].Position, &then); then.State != vm.StateStopped {
			t.Errorf("before it ran it was %s", then.State)
		}
	})
	run("compute is killed, and what is asked meanwhile waits for it", func(t *testing.T) {
		worker.Kill()
		id := accepted(api, "POST", "/api/vms/t1/stop", nil)
		instance.Eventually(t, 30*time.Second, "/readyz says so", func() bool {
			r := api.Readiness()
			compute, known := r["compute@w1"]
			return known && !compute
		})
		worker.Launch("HORCRUX_CRASHPOINT=after-effect:vm.stop", "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
		worker.Died()
		worker.Launch()
		if op := operationOf(api, id.String()); op.State != operation.StateSucceeded {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
		if state := virsh(t, worker, "domstate", "t1"); state != "shut off" {
			t.Errorf("the domain is %s", state)
		}
	})
	run("the gateway is killed, and what was asked goes on", func(t *testing.T) {
		id := accepted(api, "POST", "/api/vms/t1/start", nil)
		api.Kill()
		api.Start()
		if op := operationOf(api, id.String()); op.State != operation.StateSucceeded {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
	})
	run("the broker comes back without its store, and is filled again", func(t *testing.T) {
		broker.stop()
		id := accepted(api, "POST", "/api/vms/t1/stop", nil)
		if api.Readiness()["nats"] {
			t.Error("the broker is gone and /readyz does not say so")
		}
		if err := os.RemoveAll(filepath.Join(broker.dir, "jetstream")); err != nil {
			t.Fatal(err)
		}
		broker.start()
		if op := operationOf(api, id.String()); op.State != operation.StateSucceeded {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
		instance.Eventually(t, 30*time.Second, "it is ready", func() bool { return api.Do("GET", "/readyz", nil).StatusCode == http.StatusOK })
		instance.Eventually(t, 30*time.Second, "the stream has every event", func() bool {
			return broker.events() == recorded(t, pg.DSN())
		})
	})
	run("SIGTERM ends both", func(t *testing.T) {
		for _, i := range []*instance.Instance{api, worker} {
			i.Stop()
			if left := processes(t, i); len(left) != 0 {
				t.Errorf("left behind: %q", left)
			}
		}
	})
}

// recorded counts the events of the log.
func recorded(t *testing.T, dsn string) (n uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.QueryRow(ctx, "SELECT count(*) FROM eventstore.events").Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// broker is a NATS server with a password, on a port that stays its own across stop and start.
type broker struct {
	t      *testing.T
	dir    string
	port   int
	server *server.Server
}

func (b *broker) url(password string) string {
	return fmt.Sprintf("nats://horcrux:%s@127.0.0.1:%d", password, b.port)
}

func (b *broker) start() {
	b.t.Helper()
	if b.port == 0 {
		b.port = server.RANDOM_PORT
	}
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: b.port, Username: "horcrux", Password: "password", NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: b.dir, MaxPayload: 4 << 20,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		b.t.Fatal("the broker does not start")
	}
	b.server, b.port = s, s.Addr().(*net.TCPAddr).Port
}

func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

// events counts what is in the stream of events.
func (b *broker) events() uint64 {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	nc, err := nats.Connect(b.url("password"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := js.Stream(ctx, "HORCRUX_EVT")
	if err != nil {
		b.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}
