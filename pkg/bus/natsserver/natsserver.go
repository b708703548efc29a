// Package natsserver runs the NATS server that lives inside the process: JetStream on, no listener at all. Only
// connections made by Conn reach it.
package natsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
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

// Server is a running server.
type Server struct {
	server *server.Server
	log    *slog.Logger
}

// Start starts a server and returns when it takes connections.
func Start(o Options) (*Server, error) {
	if o.StoreDir == "" {
		return nil, errors.New("nats server: no store directory")
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	s, err := server.NewServer(&server.Options{
		ServerName:             "horcrux",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		StoreDir:               o.StoreDir,
		JetStreamMaxStore:      maxStore,
		JetStreamMaxMemory:     maxMemory,
		MaxPayload:             maxPayload,
		DisableJetStreamBanner: true,
	})
	if err != nil {
		return nil, fmt.Errorf("nats server: %w", err)
	}
	logger := &logger{log: o.Log}
	s.SetLoggerV2(logger, o.Log.Enabled(context.Background(), levelTrace), false, false)
	s.Start()
	srv := &Server{server: s, log: o.Log}
	if why := logger.fatal.Load(); why != nil {
		srv.Shutdown()
		return nil, fmt.Errorf("nats server: %s", why)
	}
	if !s.ReadyForConnections(startTime) {
		srv.Shutdown()
		return nil, fmt.Errorf("nats server: takes no connection after %s", startTime)
	}
	return srv, nil
}

// Conn connects to the server within the process. The name is shown where connections are listed. The caller closes it.
func (s *Server) Conn(name string) (*nats.Conn, error) {
	nc, err := nats.Connect("", append(bus.ConnOptions(name, s.log), nats.InProcessServer(s.server))...)
	if err != nil {
		return nil, fmt.Errorf("connect %s to the nats server: %w", name, err)
	}
	return nc, nil
}

// Shutdown closes the streams and returns when everything of the server has ended. Connections are closed before, by
// their owners.
func (s *Server) Shutdown() {
	s.server.Shutdown()
	s.server.WaitForShutdown()
}

// levelTrace is below slog's Debug: the server's own debug lines are about its insides.
const levelTrace = slog.LevelDebug - 4

// logger passes the server's log on.
type logger struct {
	log   *slog.Logger
	fatal atomic.Value // string: why the server could not start
}

func (l *logger) line(level slog.Level, format string, args []any) {
	if l.log.Enabled(context.Background(), level) {
		l.log.Log(context.Background(), level, strings.TrimSpace(fmt.Sprintf(format, args...)), "component", "nats")
	}
}

func (l *logger) Noticef(format string, args ...any) { l.line(slog.LevelDebug, format, args) }
func (l *logger) Warnf(format string, args ...any)   { l.line(slog.LevelWarn, format, args) }
func (l *logger) Errorf(format string, args ...any)  { l.line(slog.LevelError, format, args) }
func (l *logger) Debugf(format string, args ...any)  { l.line(levelTrace, format, args) }
func (l *logger) Tracef(format string, args ...any)  { l.line(levelTrace, format, args) }

// Fatalf does not end the process: Start returns what was said here.
func (l *logger) Fatalf(format string, args ...any) {
	l.fatal.Store(fmt.Sprintf(format, args...))
	l.line(slog.LevelError, format, args)
}
