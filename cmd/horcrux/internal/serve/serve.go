// Package serve puts the parts of horcrux together: it starts them in the order in which each finds what it needs,
// and stops them in the reverse order.
package serve

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"horcrux/cmd/horcrux/internal/config"
	"horcrux/cmd/horcrux/internal/datadir"
	"horcrux/pkg/bus"
	"horcrux/pkg/bus/natsserver"
	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver"
	"horcrux/pkg/problem"
	"horcrux/pkg/relay"
	"horcrux/pkg/vault"
	"horcrux/services/api"
	"horcrux/services/storage"
)

// relayLimit is for how long the relay may get nowhere before the process is not ready.
const relayLimit = 5 * time.Second

// startTime bounds the start of the parts before the services.
const startTime = 3 * time.Minute

// connections is how many this process holds to Postgres at most.
const connections = 24

// server is what the parts share while they start.
type server struct {
	config config.Config
	log    *slog.Logger
	out    io.Writer // for the person who started it
	stack  *stack
	dir    *datadir.Dir
	node   uuid.UUID
	pool   *pgxpool.Pool
	vault  *vault.Vault
	store  *postgres.Store
	bus    *bus.Bus
	relay  *relay.Relay
	ready  map[string]func(context.Context) error
	effort *engine.Metrics // of all services
	seen   []prometheus.Collector
}

// Run serves until ctx ends or a part that the others need ends by itself. It has stopped everything when it returns.
func Run(ctx context.Context, c config.Config, log *slog.Logger, out io.Writer) error {
	s := &server{config: c, log: log, out: out, stack: newStack(log), ready: map[string]func(context.Context) error{}, effort: engine.NewMetrics()}
	s.seen = append(s.seen, s.effort)
	err := s.start(ctx)
	if err == nil {
		select {
		case <-ctx.Done():
			log.Info("stopping")
		case err = <-s.stack.failed:
			log.Error("stopping", "err", err)
		}
	}
	return errors.Join(err, s.stack.stop())
}

// start starts the parts. What is first here is stopped last.
func (s *server) start(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for _, step := range []func(context.Context) error{
		s.openDir,   // everything else lives in it
		s.identify,  // a mistake that is found before there is anything to stop again
		s.traces,    // before whatever is traced, and stopped after it
		s.port,      // so is this
		s.database,  // the truth: before whoever reads or appends
		s.transport, // after the database, since a dead letter is noted there
		s.relayRun,  // fills the transport
		s.storage,   // before compute, whose processes wait for it
		s.compute,
		s.gateway, // last: nobody asks before there is somebody to answer
	} {
		if err := step(limited); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) serves(name string) bool {
	return slices.Contains(s.config.Services, name)
}

// openDir takes the data dir.
func (s *server) openDir(context.Context) error {
	dir, err := datadir.Open(s.config.DataDir)
	if err != nil {
		return err
	}
	s.dir = dir
	s.stack.push("data dir", func(context.Context) error { return dir.Close() })
	if dir.Notice != "" {
		fmt.Fprintln(s.out, dir.Notice)
	}
	return nil
}

// identify says which node this is: the configured one, else the data dir's. Compute and storage of a node, which look
// for each other on it, cannot go by two data dirs.
func (s *server) identify(context.Context) (err error) {
	if s.node = s.config.Node.ID; s.node != uuid.Nil {
		return nil
	}
	if s.node, err = identity(s.dir.NodeID()); err != nil {
		return err
	}
	if s.serves("compute") != s.serves(storage.Domain) {
		return fmt.Errorf("compute and storage in two processes find each other by the id of their node: give the parts of a host one --node-id, such as %s", s.node)
	}
	return nil
}

// identity reads the id of a data dir, which is made once.
func identity(path string) (uuid.UUID, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		id, err := uuid.Parse(strings.TrimSpace(string(b)))
		if err != nil {
			return id, fmt.Errorf("%s holds no node id; restore it, or remove it to become a new node: %w", path, err)
		}
		return id, nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return uuid.Nil, err
	}
	id := events.NewID()
	f, err := os.CreateTemp(filepath.Dir(path), ".node.id-*")
	if err != nil {
		return id, err
	}
	_, err = fmt.Fprintln(f, id)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return id, err
}

// database opens the log: in a Postgres that is named, or in a private one.
func (s *server) database(ctx context.Context) error {
	dsn := s.config.Database
	if dsn == "" {
		pg, err := pgserver.Start(ctx, pgserver.Options{
			Dir: s.dir.Postgres(), SocketDir: s.dir.PostgresSockets(), Logger: s.log.With("part", "postgres"),
		})
		if err != nil {
			return fmt.Errorf("start the private Postgres: %w", err)
		}
		s.stack.push("postgres", pg.Stop)
		s.stack.run("supervision of postgres", func(ctx context.Context) error {
			select {
			case <-ctx.Done():
				return nil
			case <-pg.Done():
				return pg.Err()
			}
		})
		dsn = pg.DSN(pgserver.Database)
	}
	var err error
	if s.pool, err = postgres.Connect(ctx, dsn, connections); err != nil {
		return err
	}
	s.stack.push("database connections", func(context.Context) error { s.pool.Close(); return nil })
	s.store, err = postgres.New(ctx, s.pool, postgres.Options{Logger: s.log.With("part", "store")})
	if err != nil && s.config.Database != "" {
		return fmt.Errorf("%w; see --database, and horcrux doctor with the same", err)
	}
	if err != nil {
		return err
	}
	key := s.config.MasterKey
	if key == "" {
		key = s.dir.MasterKey()
	}
	if s.vault, err = vault.Open(ctx, s.pool, key, s.serves("api")); err != nil {
		return err
	}
	if path, keyless := s.vault.Keyless(); keyless {
		s.log.Warn("sealed secrets cannot be used here: bring the master key from the data dir of the gateway, or name it by --master-key", "missing", path)
	}
	s.ready["postgres"] = s.store.Ready
	s.ready["fence"] = s.fence
	s.seen = append(s.seen, s.store, s.fenceLag())
	return nil
}

// transport connects to NATS: to a server that is named, or to one inside this process.
func (s *server) transport(ctx context.Context) error {
	log := s.log.With("part", "nats")
	nc, err := s.connect(log)
	if err != nil {
		return err
	}
	s.stack.push("nats connection", func(context.Context) error { nc.Close(); return nil })
	s.bus, err = bus.New(nc, bus.Options{
		Log:          log,
		OnDeadLetter: func(ctx context.Context, cmd events.Command) error { return s.store.Park(ctx, cmd.ID) },
	})
	if err != nil {
		return err
	}
	s.stack.push("bus", func(context.Context) error { return s.bus.Close() })
	if err := s.bus.EnsureStreams(ctx); err != nil {
		return err
	}
	s.ready["nats"] = s.bus.Ready
	s.seen = append(s.seen, s.deadLetters())
	s.stack.run("nudges", func(ctx context.Context) error {
		s.bus.ForwardNudges(ctx, s.store.Nudged())
		return ctx.Err()
	})
	return nil
}

func (s *server) connect(log *slog.Logger) (*nats.Conn, error) {
	if s.config.NATS.URL != "" {
		options := bus.ConnOptions("horcrux "+strings.Join(s.config.Services, " "), log)
		if s.config.NATS.Credentials != "" {
			options = append(options, nats.UserCredentials(s.config.NATS.Credentials))
		}
		nc, err := nats.Connect(s.config.NATS.URL, options...)
		if err != nil {
			return nil, fmt.Errorf("connect to NATS: %w; see --nats", err)
		}
		return nc, nil
	}
	srv, err := natsserver.Start(natsserver.Options{StoreDir: s.dir.NATS(), Log: log})
	if err != nil {
		return nil, err
	}
	s.stack.push("nats", func(context.Context) error { srv.Shutdown(); return nil })
	return srv.Conn("horcrux")
}

// domains says whose service a kind of stream belongs to.
func domains(kind string) string {
	for _, r := range api.Resources {
		if r.Kind == kind {
			return r.Domain
		}
	}
	return "unknown"
}

// relayRun lets this process be the relay when no other is.
func (s *server) relayRun(context.Context) error {
	s.relay = relay.New(relay.Options{
		Leader: s.store, Store: s.store, Bus: s.bus, Domain: domains, Log: s.log.With("part", "relay"),
		Expire: func(ctx context.Context, cmd events.Command) error {
			return engine.Expire(ctx, s.store, cmd, time.Now())
		},
	})
	s.stack.run("relay", func(ctx context.Context) error {
		s.relay.Run(ctx)
		return ctx.Err()
	})
	s.seen = append(s.seen, s.relayLag())
	s.ready["relay"] = func(context.Context) error {
		st := s.relay.Status()
		err := errors.Join(st.Lead, st.Events, st.Sweep)
		if err == nil && st.Stalled > relayLimit {
			return problem.New(problem.Unavailable, "nothing could be relayed for %s: Postgres or NATS does not answer", st.Stalled.Round(time.Second))
		}
		return err
	}
	return nil
}

func (s *server) storage(context.Context) error {
	if !s.serves(storage.Domain) {
		return nil
	}
	svc := storage.New(storage.Options{
		Node: s.node, Store: s.store, Bus: s.bus, LocalPath: s.dir.Volumes(), ImageDirs: s.imageDirs(),
		Log: s.log.With("part", storage.Domain), Metrics: s.effort,
	})
	s.stack.run(storage.Domain, svc.Run)
	s.offer(storage.Domain, "storage", svc.Ready)
	return nil
}

// imageDirs are where requests may name files: the configured ones, else the data dir's.
func (s *server) imageDirs() []string {
	if len(s.config.ImageDirs) > 0 {
		return s.config.ImageDirs
	}
	return []string{s.dir.Images()}
}
