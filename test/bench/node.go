package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/natsserver"
	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/openapi"
	"horcrux/pkg/pgserver"
	"horcrux/pkg/relay"
	"horcrux/services/api"
	"horcrux/services/api/rest"
	"horcrux/services/api/telemetry"
	"horcrux/services/compute"
	"horcrux/services/compute/console"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/storage"
)

// nodeCommand, as the first argument, makes this program a Horcrux on a fake hypervisor: all that serve runs, and what
// cmd/horcrux must not link.
const nodeCommand = "fake-node"

// nodeConnections is what serve opens.
const nodeConnections = 24

// fakeNode is what runs in such a process. It is stopped in the reverse order of its start.
type fakeNode struct {
	dir    string
	screen string
	log    *slog.Logger
	stops  []func(context.Context) error
	fail   context.CancelCauseFunc
}

// nodeMain is the main of such a process. It stops when it is asked to, and when a part of it ends by itself.
func nodeMain(args []string) int {
	flags := flag.NewFlagSet(nodeCommand, flag.ExitOnError)
	dir := flags.String("dir", "", "data dir")
	database := flags.String("database", "", "DSN; none: a private Postgres in the data dir")
	profiled := flags.String("profile", "", "file for a CPU profile")
	screen := flags.String("screen", "", "Unix socket that is the screen of every machine; none: machines have no consoles")
	domains := flags.Int("domains", 0, "machines of the fleet that the hypervisor runs")
	if err := flags.Parse(args); err != nil {
		return 64
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	n := &fakeNode{dir: *dir, screen: *screen, fail: fail, log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if *profiled != "" {
		stop, err := profile(*profiled)
		if err != nil {
			fmt.Fprintln(os.Stderr, nodeCommand+":", err)
			return 1
		}
		n.push(func(context.Context) error { return stop() })
	}
	err := n.start(ctx, *database, *domains)
	if err == nil {
		<-ctx.Done()
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			err = cause
		}
	}
	if err = errors.Join(err, n.stop()); err != nil {
		fmt.Fprintln(os.Stderr, nodeCommand+":", err)
		return 1
	}
	return 0
}

func (n *fakeNode) push(stop func(context.Context) error) { n.stops = append(n.stops, stop) }

// run runs a part until it is stopped.
func (n *fakeNode) run(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := run(ctx); ctx.Err() == nil {
			n.fail(fmt.Errorf("%s ended by itself: %w", name, err))
		}
	})
	n.push(func(context.Context) error { cancel(); wg.Wait(); return nil })
}

func (n *fakeNode) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime)
	defer cancel()
	var errs []error
	for i := len(n.stops) - 1; i >= 0; i-- {
		errs = append(errs, n.stops[i](ctx))
	}
	return errors.Join(errs...)
}

// start starts the parts in the order in which serve does.
func (n *fakeNode) start(ctx context.Context, dsn string, domains int) error {
	if dsn == "" {
		pg, err := pgserver.Start(ctx, pgserver.Options{
			Dir: filepath.Join(n.dir, "postgres"), SocketDir: filepath.Join(n.dir, "run"), Logger: n.log,
		})
		if err != nil {
			return err
		}
		n.push(pg.Stop)
		dsn = pg.DSN(pgserver.Database)
	}
	pool, err := postgres.Connect(ctx, dsn, nodeConnections)
	if err != nil {
		return err
	}
	n.push(func(context.Context) error { pool.Close(); return nil })
	store, err := postgres.New(ctx, pool, postgres.Options{Logger: n.log})
	if err != nil {
		return err
	}
	b, stopBus, err := startBus(ctx, n.dir, n.log)
	if err != nil {
		return err
	}
	n.push(func(context.Context) error { return stopBus() })
	n.run("nudges", func(ctx context.Context) error { b.ForwardNudges(ctx, store.Nudged()); return nil })
	relayed := n.relay(store, b)
	ready, err := n.services(store, b, domains)
	if err != nil {
		return err
	}
	ready["relay"] = relayed
	return n.gateway(ctx, pool, store, b, ready)
}

// startBus starts a NATS server within this process and connects a bus to it.
func startBus(ctx context.Context, dir string, log *slog.Logger) (_ *bus.Bus, stop func() error, err error) {
	server, err := natsserver.Start(natsserver.Options{StoreDir: filepath.Join(dir, "nats"), Log: log})
	if err != nil {
		return nil, nil, err
	}
	nc, err := server.Conn("bench")
	if err != nil {
		server.Shutdown()
		return nil, nil, err
	}
	b, err := bus.New(nc, bus.Options{Log: log})
	if err == nil {
		err = b.EnsureStreams(ctx)
	}
	stop = func() error {
		var err error
		if b != nil {
			err = b.Close()
		}
		nc.Close()
		server.Shutdown()
		return err
	}
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return b, stop, nil
}

func (n *fakeNode) relay(store *postgres.Store, b *bus.Bus) rest.Check {
	domains := map[string]string{}
	for _, r := range api.Resources {
		domains[r.Kind] = r.Domain
	}
	r := relay.New(relay.Options{
		Leader: store, Store: store, Bus: b, Log: n.log,
		Domain: func(kind string) string {
			if d := domains[kind]; d != "" {
				return d
			}
			return "unknown"
		},
		Expire: func(ctx context.Context, cmd events.Command) error { return engine.Expire(ctx, store, cmd, time.Now()) },
	})
	n.run("relay", func(ctx context.Context) error { r.Run(ctx); return nil })
	return func(context.Context) error {
		st := r.Status()
		return errors.Join(st.Lead, st.Events, st.Sweep)
	}
}

func (n *fakeNode) services(store *postgres.Store, b *bus.Bus, domains int) (map[string]rest.Check, error) {
	volumes := filepath.Join(n.dir, "volumes")
	if err := os.MkdirAll(volumes, 0o711); err != nil {
		return nil, err
	}
	images := []string{filepath.Join(n.dir, "images")}
	kept := storage.New(storage.Options{Node: node, Store: store, Bus: b, LocalPath: volumes, ImageDirs: images, Log: n.log})
	n.run("storage", kept.Run)

	h := fake.New()
	for i := range domains {
		h.Add(hypervisor.Spec{ID: vmID(i), Name: vmName(i), CPUs: 2, MemoryMB: 1024}, hypervisor.Running, true)
	}
	driver := h.Driver()
	n.push(func(context.Context) error { return driver.Close() })
	computed := compute.New(compute.Options{
		Node: node, Store: store, Bus: b, Driver: driver, Networks: driver, Usage: driver, ImageDirs: images, Log: n.log, Accelerator: hypervisor.TCG,
	})
	n.run("compute", computed.Run)
	if n.screen != "" {
		n.run("consoles", console.New(console.Options{Node: node, Bus: b, Driver: screens{n.screen}, Log: n.log}).Run)
	}
	return map[string]rest.Check{"nats": b.Ready, "storage": kept.Ready, "hypervisor": computed.Ready}, nil
}

// gateway opens the Unix socket and nothing else.
func (n *fakeNode) gateway(ctx context.Context, pool *pgxpool.Pool, store *postgres.Store, b *bus.Bus, ready map[string]rest.Check) error {
	ready["postgres"] = pool.Ping
	wake, stop := b.Nudges()
	n.push(func(context.Context) error { stop(); return nil })
	svc, err := api.New(ctx, api.Options{
		Store: store, Bus: b, Wake: wake, Pool: pool, DataDir: n.dir, Socket: socketIn(n.dir), Log: n.log, Ready: ready,
		ImageDirs: []string{filepath.Join(n.dir, "images")}, Version: openapi.Version{Version: "bench", Go: runtime.Version()},
		Features: []openapi.Feature{{Name: "qemu", Built: true}}, // what the routes of machines ask for
		Node:     func(context.Context, string) (uuid.UUID, error) { return node, nil },
		Nodes:    func() []telemetry.Node { return []telemetry.Node{{ID: node, Name: "bench"}} },
	})
	if err != nil {
		return err
	}
	n.run("api", svc.Run)
	return nil
}
