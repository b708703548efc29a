package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	natsd "github.com/nats-io/nats-server/v2/server"
)

// watchBlock is how many messages follow one another before the other side's turn.
const watchBlock = 10

// watch compares how long an event takes from where the gateway has read it to every one of 1,000 watchers, with how
// long a message of the same size takes through a NATS server to as many subscribers; and with a watcher more that
// takes nothing of what is written to it. Both sides are TCP without TLS within this process, and are read alike.
func watch(ctx context.Context, b *bench, r *result) (err error) {
	l, err := b.postgres(ctx)
	if err != nil {
		return err
	}
	s, err := serveWatched(ctx, b, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if r.fsync, err = fsyncMode(ctx, s.pool); err != nil {
		return err
	}
	broker, err := natsd.NewServer(&natsd.Options{ServerName: "bench", Host: "127.0.0.1", Port: -1, NoSigs: true})
	if err != nil {
		return err
	}
	broker.Start()
	defer func() { broker.Shutdown(); broker.WaitForShutdown() }()
	if !broker.ReadyForConnections(readyTime) {
		return errors.New("the NATS server takes no connection")
	}

	n := b.of(1000, 100)
	watched := &fan{name: fmt.Sprintf("SSE, %d watchers", n), send: s.record}
	defer watched.close()
	if err := watched.open(ctx, n, s.address, s.follow(s.end), isEvent); err != nil {
		return err
	}
	subscribed := &fan{name: fmt.Sprintf("NATS, %d subscribers", n)}
	defer subscribed.close()
	if err := subscribed.open(ctx, n, broker.Addr().String(), "CONNECT {\"verbose\":false}\r\nSUB bench 1\r\nPING\r\n", isMessage); err != nil {
		return err
	}
	publisher, err := net.Dial("tcp", broker.Addr().String())
	if err != nil {
		return err
	}
	defer publisher.Close()
	if _, err := publisher.Write([]byte("CONNECT {\"verbose\":false}\r\n")); err != nil {
		return err
	}
	subscribed.send = func(context.Context, int) (time.Time, error) {
		text := fmt.Sprintf("PUB bench %d\r\n%s\r\n", s.size, strings.Repeat("x", s.size))
		begin := time.Now()
		_, err := publisher.Write([]byte(text))
		return begin, err
	}

	stalled := &fan{name: watched.name + " and one that stalls", send: s.record, conns: watched.conns}
	fans := []*fan{watched, subscribed, stalled}
	for turn := range b.of(5, 1) + b.of(60, 5) {
		for k := range fans {
			f := fans[(turn+k)%len(fans)]
			if f == stalled {
				err = s.beside(func() error { return f.block(ctx, turn) })
			} else {
				err = f.block(ctx, turn)
			}
			if err != nil {
				return fmt.Errorf("%s, turn %d: %w", f.name, turn, err)
			}
		}
		if turn < b.of(5, 1) {
			for _, f := range fans {
				f.values = nil
			}
		}
	}
	for _, f := range fans {
		r.series = append(r.series, series{f.name, ms, f.values})
	}
	sse, nats, beside := r.series[0], r.series[1], r.series[2]
	r.ratios = []ratio{
		atMost("SSE ÷ NATS, p99", sse.p99()/nats.p99(), 3, 2),
		reported("SSE ÷ NATS, p50", sse.p50()/nats.p50()),
		atMost("SSE beside a stalled watcher ÷ without, p50", beside.p50()/sse.p50(), 1.1, 0),
		reported("SSE beside a stalled watcher ÷ without, p99", beside.p99()/sse.p99()),
	}
	r.note("a message has %d bytes", s.size)
	return nil
}

// fan is a message's way to many connections.
type fan struct {
	name string
	// send sends a message and says when it was where it fans out.
	send   func(ctx context.Context, turn int) (time.Time, error)
	conns  *receivers
	values []float64
}

// receivers are connections that note when a message has come.
type receivers struct {
	all     []net.Conn
	came    []time.Time // for each, the last
	waiting sync.WaitGroup
	running sync.WaitGroup
	broken  chan error
}

// open connects n times, says hello, and waits until each is answered.
func (f *fan) open(ctx context.Context, n int, address, hello string, next func(*bufio.Reader) (bool, error)) error {
	f.conns = &receivers{came: make([]time.Time, n), broken: make(chan error, n)}
	for i := range n {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", address)
		if err != nil {
			return err
		}
		f.conns.all = append(f.conns.all, c)
		if _, err := c.Write([]byte(hello)); err != nil {
			return err
		}
		in := bufio.NewReader(c)
		for greeted := false; !greeted; { // by the line that answers hello
			line, err := in.ReadString('\n')
			if err != nil {
				return err
			}
			greeted = line == "PONG\r\n" || strings.HasPrefix(line, ":")
		}
		f.conns.running.Go(func() { f.conns.receive(i, in, next) })
	}
	return nil
}

func (r *receivers) receive(i int, in *bufio.Reader, next func(*bufio.Reader) (bool, error)) {
	for {
		message, err := next(in)
		if err != nil {
			r.broken <- err
			return
		}
		if message {
			r.came[i] = time.Now()
			r.waiting.Done()
		}
	}
}

func (f *fan) close() {
	if f.conns == nil {
		return
	}
	for _, c := range f.conns.all {
		_ = c.Close() // only to end its reader
	}
	f.conns.running.Wait()
}

// block sends messages, each when the one before has come everywhere.
func (f *fan) block(ctx context.Context, turn int) error {
	for i := range watchBlock {
		f.conns.waiting.Add(len(f.conns.all))
		begin, err := f.send(ctx, turn*watchBlock+i)
		if err != nil {
			return err
		}
		everywhere := make(chan struct{})
		go func() { f.conns.waiting.Wait(); close(everywhere) }()
		select {
		case <-everywhere:
		case err := <-f.conns.broken:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		for _, came := range f.conns.came {
			f.values = append(f.values, max(0, inMillis(came.Sub(begin))))
		}
	}
	return nil
}

// isEvent reads a line of an event stream, in whatever chunks, and says whether an event came to its end with it.
func isEvent(in *bufio.Reader) (bool, error) {
	line, err := in.ReadSlice('\n')
	if err != nil || !strings.HasPrefix(string(line), "data: ") {
		return false, err
	}
	_, err = in.ReadSlice('\n') // the empty line
	return true, err
}

// isMessage reads a message of the NATS protocol, or another of its lines.
func isMessage(in *bufio.Reader) (bool, error) {
	line, err := in.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "MSG ") {
		return false, err
	}
	var size int
	if _, err := fmt.Sscanf(line, "MSG bench 1 %d", &size); err != nil {
		return false, err
	}
	_, err = in.Discard(size + len("\r\n"))
	return true, err
}
