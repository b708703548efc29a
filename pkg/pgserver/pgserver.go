// Package pgserver runs a private Postgres: it makes the cluster, starts the server on a Unix socket, restarts it when
// it dies and stops it in order.
//
// The server outlives this process on purpose. It is started in a session of its own, and when this process is killed
// it goes on; the next Start finds it by its pid file and takes it over, so that a crash of ours costs no recovery of
// Postgres's.
//
// Dir holds, owned by whom this process runs as: postgresql.conf, pg_hba.conf and pg_ident.conf (written anew at every
// start), local.conf (an administrator's own settings, which win), postgres.log; and data/, which belongs to the
// server's OS user.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Database is the database that Start makes.
const Database = "horcrux"

// role is the cluster's superuser and the only one that may connect.
const role = "horcrux"

// defaultUser runs the server when this process is root, which Postgres refuses to run as.
const defaultUser = "postgres"

// startLimit is how long a server may take to answer. Recovery after a crash reads at most max_wal_size.
const startLimit = 2 * time.Minute

// Options say where a server lives and how it runs. Dir and SocketDir are required.
type Options struct {
	// Dir holds configuration, log and data. It is made when it is missing; the folder above it must exist.
	Dir string
	// SocketDir holds the socket and nothing else. It is made when it is missing, with mode 0700 for the server's OS
	// user. Its path is limited by what fits a socket's address, 107 bytes with the socket's name.
	SocketDir string
	// User is the OS user that runs the server when this process is root; "" takes "postgres". Data that exists
	// already is run by its owner, whatever User says.
	User string
	// MaxConnections is the number of connections that may be open at a time; 0 takes 50.
	MaxConnections int
	// Volatile gives up durability for speed: a crash of the machine loses the cluster. For tests.
	Volatile bool
	// Logger hears of starts, stops and deaths; nil discards them.
	Logger *slog.Logger

	pause time.Duration // before the first attempt to restart; tests shorten it
}

// Server is a running Postgres under supervision. Its methods may be called at the same time.
type Server struct {
	cluster *cluster
	log     *slog.Logger

	cancel context.CancelFunc
	done   chan struct{} // closed when supervision has ended
	err    error         // why it ended by itself; read after done

	mu   sync.Mutex
	proc *process
}

// Start brings the server of o.Dir up and returns when it answers and the database exists: it takes over one that runs
// already, clears away a pid file whose process is gone, and makes the cluster when there is none. The error names
// what to mend when no Postgres is installed, a folder cannot be entered by the server's user, or the socket's path is
// too long. The server lives until Stop, not until ctx ends; ctx bounds the start, as does a limit of two minutes.
func Start(ctx context.Context, o Options) (*Server, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.pause == 0 {
		o.pause = pauseMin
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	c, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	p, err := c.bringUp(ctx)
	if err != nil {
		return nil, fmt.Errorf("start postgres: %w", err)
	}
	s := &Server{cluster: c, log: o.Logger, proc: p, done: make(chan struct{})}
	if err := s.CreateDatabase(ctx, Database); err != nil {
		return nil, errors.Join(fmt.Errorf("start postgres: %w", err), p.stop(context.WithoutCancel(ctx)))
	}
	run, cancelRun := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancelRun
	go s.supervise(run)
	return s, nil
}

// DSN returns the URL by which libpq and pgx reach a database of this server. It holds no secret: the server knows its
// clients by their OS user.
func (s *Server) DSN(database string) string { return s.cluster.dsn(database) }

// DSN is that of the server whose socket is in a folder, whoever started it.
func DSN(socketDir, database string) string { return (&cluster{socketDir: socketDir}).dsn(database) }

// CreateDatabase makes an empty database unless it exists.
func (s *Server) CreateDatabase(ctx context.Context, name string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is left to lose on it
	const duplicateDatabase = "42P04"
	_, err = conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == duplicateDatabase {
		return nil
	}
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// Pid returns the process id of the postmaster that runs now, or ran last.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.pid
}

// Done is closed when the server is no longer supervised: after Stop, or when it died more often than it is restarted.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns why supervision ended by itself, nil before that and after Stop.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop shuts the server down: sessions are cut off and a checkpoint is written. When that has not ended by ctx (or
// half a minute) the server is ended at once, which loses nothing but makes the next start recover, and an error says
// so. A second Stop does nothing.
func (s *Server) Stop(ctx context.Context) error {
	s.cancel()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.proc.stop(ctx); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	return nil
}

// Halt stops the server of a Dir, whoever started it, as Stop does. It is nil when none runs.
func Halt(ctx context.Context, dir string) error {
	pid, ok, err := (&cluster{dir: dir}).running()
	if err != nil || !ok {
		return err
	}
	p, err := watch(pid)
	if err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	if err := p.stop(ctx); err != nil {
		return fmt.Errorf("stop postgres: %w", err)
	}
	return nil
}

func (c *cluster) dsn(database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(role),
		Path:     "/" + database,
		RawQuery: url.Values{"host": {c.socketDir}, "port": {port}}.Encode(),
	}
	return u.String()
}

// ping asks the server whether it takes connections.
func (c *cluster) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, c.dsn("postgres"))
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// clientUsers are the OS users that the server lets in.
func (c *cluster) clientUsers() []string {
	users := []string{c.user.Name}
	if me := c.me.Name; me != c.user.Name {
		users = append(users, me)
	}
	if os.Geteuid() != 0 {
		users = append(users, "root")
	}
	return users
}
