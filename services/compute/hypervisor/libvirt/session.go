//go:build !no_qemu

package libvirt

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/watch"
)

// inFlight bounds the calls of one connection.
const inFlight = 32

// session is one connection, from the dial to its end.
type session struct {
	d       *Driver
	wire    *wire
	lv      *golibvirt.Libvirt
	hub     *watch.Hub
	calls   chan struct{} // holds a token for each call under way
	acts    chan struct{} // and one for each of those that change something
	slow    chan struct{} // and one for each of those that take minutes: half of them at most
	kind    string        // qemu or test
	daemon  uint64        // libvirt's version: major*1e6 + minor*1e3 + release
	marks   marks
	glances glances
	caps    capabilities
}

// wire is the connection to the daemon. It knows when it is over, which the protocol library does not always tell.
type wire struct {
	net.Conn
	once sync.Once
	over chan struct{}
}

// Dial hands the connection to the protocol library.
func (w *wire) Dial() (net.Conn, error) { return w, nil }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.Close()
	}
	return n, err
}

// Close ends the connection; again is no error, since whoever finds it broken closes it.
func (w *wire) Close() error {
	var err error
	w.once.Do(func() {
		close(w.over)
		err = w.Conn.Close()
	})
	return err
}

// dial connects, says hello, and subscribes to what happens.
func (d *Driver) dial(ctx context.Context) (*session, error) {
	within, cancel := context.WithTimeout(ctx, d.opts.DialTimeout)
	defer cancel()
	defer context.AfterFunc(d.life, cancel)()
	conn, err := d.target.connect(within)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hypervisor.ErrUnavailable, err)
	}
	s := &session{
		d: d, wire: &wire{Conn: conn, over: make(chan struct{})}, hub: watch.New(),
		calls: make(chan struct{}, inFlight), acts: make(chan struct{}, d.opts.Mutations), slow: make(chan struct{}, max(1, d.opts.Mutations/2)),
	}
	// Closing the connection is the only way to end an exchange early.
	silent := context.AfterFunc(within, s.drop)
	s.lv = golibvirt.NewWithDialer(s.wire)
	events, err := s.hello()
	if !silent() {
		err = within.Err()
	}
	if err != nil {
		s.drop()
		return nil, s.explain(err, look)
	}
	d.sessions.Go(func() {
		s.relay(events)
		s.drop()
		s.hub.Close()
		for range cap(s.calls) { // every call has ended when all tokens are ours
			s.calls <- struct{}{}
		}
		d.log.Info("disconnected")
	})
	d.log.Info("connected", "hypervisor", s.kind, "daemon", s.daemon)
	return s, nil
}

// hello opens the hypervisor, learns what it is and subscribes to its events.
func (s *session) hello() (<-chan golibvirt.DomainEventLifecycleMsg, error) {
	if err := s.lv.ConnectToURI(golibvirt.ConnectURI(s.d.target.uri)); err != nil {
		return nil, err
	}
	name, err := s.lv.ConnectGetType()
	if err != nil {
		return nil, err
	}
	if s.kind = kinds[name]; s.kind == "" {
		return nil, fmt.Errorf("a hypervisor of type %q", name)
	}
	if s.daemon, err = s.lv.ConnectGetLibVersion(); err != nil {
		return nil, err
	}
	return s.lv.LifecycleEvents(context.Background()) // ends with the connection
}

// kinds are the hypervisors that we drive, by what libvirt calls them.
var kinds = map[string]string{"QEMU": "qemu", "TEST": "test"}

// drop ends the connection. Its calls fail, its watches end.
func (s *session) drop() { s.wire.Close() }

func (s *session) broken() bool {
	select {
	case <-s.wire.over:
		return true
	default:
		return false
	}
}

// exchange makes one call. It returns when the daemon has answered, ctx has ended, or the connection has. A call that
// its caller left goes on until the daemon answers or CallTimeout ends the connection.
func exchange[T any](ctx context.Context, s *session, o outcome, f func(*golibvirt.Libvirt) (T, error)) (T, error) {
	return exchangeWithin(ctx, s, o, s.d.opts.CallTimeout, f)
}

// exchangeWithin is exchange for what may take another time than CallTimeout.
func exchangeWithin[T any](ctx context.Context, s *session, o outcome, limit time.Duration, f func(*golibvirt.Libvirt) (T, error)) (T, error) {
	var none T
	free, err := s.enter(ctx, o, limit)
	if err != nil {
		return none, err
	}
	type answer struct {
		value T
		err   error
	}
	answered := make(chan answer, 1)
	go func() { // owned by the session: it holds a token
		defer free()
		watchdog := time.AfterFunc(limit, s.drop)
		defer watchdog.Stop()
		v, err := f(s.lv)
		answered <- answer{v, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return none, s.explain(a.err, o)
		}
		return a.value, nil
	case <-ctx.Done():
		return none, cut(ctx, o)
	}
}

// enter waits for a place among the calls under way, which free gives back. Nothing was sent when it fails.
func (s *session) enter(ctx context.Context, o outcome, limit time.Duration) (free func(), err error) {
	var taken []chan struct{}
	free = func() {
		for _, c := range taken {
			<-c
		}
	}
	var places []chan struct{}
	switch {
	case o == act && limit > s.d.opts.CallTimeout:
		places = append(places, s.slow, s.acts)
	case o == act:
		places = append(places, s.acts)
	}
	for _, c := range append(places, s.calls) {
		select {
		case c <- struct{}{}:
			taken = append(taken, c)
			continue
		case <-ctx.Done():
			err = cut(ctx, look)
		case <-s.wire.over:
			err = s.explain(golibvirt.ErrInterrupted, look)
		}
		free()
		return nil, err
	}
	return free, nil
}

// explain gives a failure its meaning. What is not an answer of the daemon means that the connection is no good.
func (s *session) explain(err error, o outcome) error {
	var said golibvirt.Error
	if errors.As(err, &said) {
		return fmt.Errorf("%w: %w", meaning(said), err)
	}
	if errors.Is(err, golibvirt.ErrUnsupported) {
		return fmt.Errorf("%w: %w", hypervisor.ErrUnsupported, err)
	}
	s.drop()
	switch {
	case s.d.life.Err() != nil:
		return fmt.Errorf("%w: %w", errClosed, err)
	case o != look && !errors.Is(err, syscall.EINVAL): // EINVAL: the library did not send it
		return fmt.Errorf("%w: %w", hypervisor.ErrUnknown, err)
	}
	return fmt.Errorf("%w: %w", hypervisor.ErrUnavailable, err)
}
