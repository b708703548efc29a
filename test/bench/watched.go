package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/services/api"
	"horcrux/services/api/access"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/rest"
	"horcrux/services/api/submit"
)

// watchedLog is a gateway on a TCP port, whose log is appended to one event at a time.
type watchedLog struct {
	pool    *pgxpool.Pool
	store   *received
	address string
	head    eventstore.Head
	end     events.Position // of what was recorded before anybody watched
	size    int             // of a message
	stop    func() error
}

// received notes when the tail of the gateway has read an event.
type received struct {
	eventstore.Store
	at chan time.Time
}

func (r *received) Read(ctx context.Context, after events.Position, o eventstore.ReadOptions) (eventstore.Page, error) {
	page, err := r.Store.Read(ctx, after, o)
	if len(o.Kinds)+len(o.Types) == 0 && len(page.Events) == 1 { // neither the projection nor a watcher for itself
		select {
		case r.at <- time.Now():
		default:
		}
	}
	return page, err
}

// Of what is recorded before anybody watches: more than the buffers of a connection take.
const (
	bulkEvents = 64
	bulkBytes  = 128 << 10
)

func serveWatched(ctx context.Context, b *bench, l *lab) (*watchedLog, error) {
	pool, store, err := l.open(ctx, "watch", fleetConnections)
	if err != nil {
		return nil, err
	}
	s := &watchedLog{pool: pool, store: &received{Store: store, at: make(chan time.Time, 1)}}
	for range bulkEvents {
		if err := s.change(ctx, strings.Repeat("x", bulkBytes)); err != nil {
			return nil, err
		}
	}
	if s.end, err = store.End(ctx); err != nil {
		return nil, err
	}
	eventBus, stopBus, err := startBus(ctx, l.dir, b.log)
	if err != nil {
		return nil, err
	}
	wake, stopWake := eventBus.Nudges()
	model, err := readmodel.Open(ctx, readmodel.Options{Pool: pool, Reader: s.store, Resources: kinds(), Wake: wake, Log: b.log})
	if err != nil {
		return nil, errors.Join(err, stopBus())
	}
	gateway, err := rest.New(rest.Options{
		Submit: submit.New(submit.Options{Store: s.store, Bus: eventBus, Model: model, Log: b.log}),
		Model:  model, Store: s.store, Resources: api.Resources, Log: b.log,
		Authenticate: func(*http.Request) (access.Caller, error) {
			return access.Caller{Actor: "bench", Auth: "internal", Administrator: true}, nil
		},
	})
	if err != nil {
		return nil, errors.Join(err, stopBus())
	}
	door, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, errors.Join(err, stopBus())
	}
	s.address = door.Addr().String()
	server := &http.Server{Handler: gateway, ReadHeaderTimeout: stopTime}
	running, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() { eventBus.ForwardNudges(running, store.Nudged()) })
	parts.Go(func() { _ = model.Run(running) }) // ends with running, and then with nil
	parts.Go(func() { _ = server.Serve(door) }) // ends with close
	s.stop = func() error {
		gateway.Drain()
		err := server.Close()
		cancel()
		parts.Wait()
		stopWake()
		return errors.Join(err, stopBus())
	}
	return s, nil
}

func (s *watchedLog) close() error { return s.stop() }

// change records that a machine has another description.
func (s *watchedLog) change(ctx context.Context, description string) error {
	r, err := s.store.Append(ctx, eventstore.Append{Meta: appendMeta, Streams: []eventstore.StreamAppend{{
		Stream: events.NewStream(vm.Kind, vmID(0)), Head: s.head,
		Events: []events.Draft{vm.Codec.Encode(described(description))},
	}}})
	if err != nil {
		return err
	}
	e := r.Events[0]
	s.head = eventstore.Head{Version: e.Version, Hash: e.Hash, At: e.At}
	text, err := json.Marshal(e)
	s.size = len(text) + len("id: \nevent: \ndata: \n\n") + len(e.Type) + len(e.Position.String())
	return err
}

// record appends an event and says when the gateway had read it.
func (s *watchedLog) record(ctx context.Context, turn int) (time.Time, error) {
	select {
	case <-s.store.at: // of an event that came while nobody asked
	default:
	}
	if err := s.change(ctx, fmt.Sprintf("changed %d times", turn)); err != nil {
		return time.Time{}, err
	}
	select {
	case at := <-s.store.at:
		return at, nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}
}

// follow is the request for the events behind a position.
func (s *watchedLog) follow(after events.Position) string {
	return "GET /api/events HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nLast-Event-ID: " + after.String() + "\r\n\r\n"
}

// beside runs f while a watcher that began in the past takes nothing of what is written to it.
func (s *watchedLog) beside(f func() error) (err error) {
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
		return err
	}
	if _, err := c.Write([]byte(s.follow(events.Position{}))); err != nil {
		return err
	}
	in := bufio.NewReader(c)
	for stalls := false; !stalls; { // from the first event on
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		stalls = strings.HasPrefix(string(line), "event: ")
	}
	return f()
}
