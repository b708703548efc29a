// Package natsserver runs the NATS server that lives inside the process: JetStream on, no listener at all. Only
// connections made by Conn reach it.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/bus"
)

// startTime bounds the start. Recovering full streams from a slow disk takes seconds.
const startTime = 30 * time.Second

// maxPayload leaves room for an event or a command whose data is as large as the API takes, with its envelope. In bytes.
const maxPayload = 4 << 20

// maxStore bounds what the streams together may reserve on disk. In bytes.
const maxStore = 2 << 30

// maxMemory bounds streams kept in memory, of which Horcrux has none. In bytes.
const maxMemory = 16 << 20

// Options of a server.
type Options struct {
	// StoreDir is where JetStream keeps its streams; required. No two servers may share it.
	StoreDir string
	Log      *slog.Logger // nil: slog.Default
}

// Server is a running server. One whose store is lost, or that has stopped to write since its disk was full, is started
// anew in the place of the old: connections made by Conn come back to it by themselves.
type Server struct {
	Options
	stop func() // ends the watch

	mu     sync.Mutex
	server *server.Server // nil while none could be started
	logger *logger        // the server's
	store  *os.File       // the folder of its streams, open to see that it goes
}

// Start starts a server and returns when it takes connections.
func Start(o Options) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("nats server: no store directory")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s := &Server{Options: o}
	if err := s.launch(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var watching sync.WaitGroup
	watching.Go(func() { s.watch(ctx) })
	s.stop = func() { cancel(); watching.Wait() }
	return s, nil
}

// launch starts a server where there is none.
func (s *Server) launch() error {
	n, err := server.NewServer(&server.Options{
		ServerName:             "horcrux",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               s.StoreDir,
		JetStreamMaxStore:      maxStore,
		JetStreamMaxMemory:     maxMemory,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return fmt.Errorf("nats server: %w", err)
	}
	logger := &logger{log: s.Log}
	n.SetLoggerV2(logger, s.Log.Enabled(context.Background(), levelTrace), false, false)
	n.Start()
	why, _ := logger.fatal.Load().(string)
	if why == "" && !n.ReadyForConnections(startTime) {
		why = fmt.Sprintf("takes no connection after %s", startTime)
	}
	store, err := os.Open(filepath.Join(s.StoreDir, server.JetStreamStoreDir))
	if why == "" && err != nil {
		why = err.Error()
	}
	if why != "" {
		end(n, store)
		return fmt.Errorf("nats server: %s", why)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.logger, s.store = n, logger, store
	return nil
}

// end ends a server and returns when everything of it has ended.
func end(n *server.Server, store *os.File) {
	n.Shutdown()
	n.WaitForShutdown()
	_ = store.Close() // it was only looked at
}

// watchEach is how often the server is looked at.
const watchEach = time.Second

// watch starts a server anew that is of no use any more, until ctx ends. What its streams held is published again.
func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(watchEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why := s.ails()
		if why == "" {
			continue
		}
		s.Log.Warn("the nats server is started anew", "why", why)
		s.take()
		if err := s.launch(); err != nil {
			s.Log.Error("the nats server does not start, trying again", "err", err)
		}
	}
}

// ails says why the server is of no use any more, "" while it is.
func (s *Server) ails() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return "none runs"
	}
	if !s.server.JetStreamEnabled() {
		return "it has given up its streams"
	}
	if s.logger.broken.Load() {
		return "it could not write, and will not again"
	}
	info, err := s.store.Stat()
	if err != nil {
		return err.Error()
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Nlink == 0 {
		return "its store was deleted"
	}
	return ""
}

// take ends the server, if there is one.
func (s *Server) take() {
	s.mu.Lock()
	n, store := s.server, s.store
	s.server, s.store = nil, nil
	s.mu.Unlock()
	if n != nil {
		end(n, store)
	}
}

// Conn connects to the server within the process. The name is shown where connections are listed. The caller closes it.
func (s *Server) Conn(name string) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(bus.ConnOptions(name, s.Log), nats.InProcessServer(s))...)
	if err != nil {
		return nil, fmt.Errorf("connect %s to the nats server: %w", name, err)
	}
	return nc, nil
}

// InProcessConn implements nats.InProcessConnProvider: to the server that runs now.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil, errors.New("no nats server runs")
	}
	return s.server.InProcessConn()
}

// Shutdown closes the streams and returns when everything of the server has ended. Connections are closed before, by
// their owners.
func (s *Server) Shutdown() {
	s.stop()
	s.take()
}

// levelTrace is below slog's Debug: the server's own debug lines are about its insides.
const levelTrace = slog.LevelDebug - 4

// logger passes the server's log on.
type logger struct {
	log   *slog.Logger
	fatal atomic.Value // string: why the server could not start
	// broken says that a stream could not write. From then on it answers no publication, also when the disk has room
	// again (nats-server 2.15), and nothing but the log tells.
	broken atomic.Bool
}

const writeError = "critical write error"

func (l *logger) line(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, args...)), "component", "nats")
	}
}

func (l *logger) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.line(levelTrace, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.line(levelTrace, format, args) }

// Errorf also takes in that a stream is broken.
func (l *logger) Errorf(format string, args ...any) {
	if strings.Contains(format, writeError) {
		l.broken.Store(true)
	}
	l.line(slog.LevelError, format, args)
}

// Fatalf does not end the process: Start returns what was said here.
func (l *logger) Fatalf(format string, args ...any) {
	l.fatal.Store(fmt.Sprintf(format, args...))
	l.line(slog.LevelError, format, args)
}
