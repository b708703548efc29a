// Package bustest gives tests a bus on an embedded server of their own.
package bustest

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/nats-io/nats.go"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/natsserver"
)

// Quiet is a log that nobody reads.
var Quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// Server starts a server that the test's end stops. Its streams are in a temporary folder.
func Server(tb testing.TB) *natsserver.Server {
	tb.Helper()
	s, err := natsserver.Start(natsserver.Options{StoreDir: tb.TempDir(), Log: Quiet})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Shutdown)
	return s
}

// Conn connects to a server until the test's end.
func Conn(tb testing.TB, s *natsserver.Server) *nats.Conn {
	tb.Helper()
	nc, err := s.Conn(tb.Name())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(nc.Close)
	return nc
}

// On opens a bus on a server, with a connection of its own and with the streams made, until the test's end.
func On(tb testing.TB, s *natsserver.Server, o bus.Options) *bus.Bus {
	tb.Helper()
	if o.Log == nil {
		o.Log = Quiet
	}
	b, err := bus.New(Conn(tb, s), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	if err := b.EnsureStreams(context.Background()); err != nil {
		tb.Fatal(err)
	}
	return b
}

// New opens a bus on a server of its own.
func New(tb testing.TB, o bus.Options) *bus.Bus {
	tb.Helper()
	return On(tb, Server(tb), o)
}
