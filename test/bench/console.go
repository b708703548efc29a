package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	apiclient "horcrux/pkg/client"
	"horcrux/services/compute/hypervisor"
)

// sourceRate is what the screen of the measurement says, in bytes a second.
const sourceRate = 50e6

// screens is a hypervisor whose machines all have the one screen.
type screens struct{ socket string }

func (s screens) Consoles(context.Context, uuid.UUID) (hypervisor.Consoles, error) {
	return hypervisor.Consoles{Active: true, VNC: s.socket}, nil
}

// carried compares a screen that says 50 MB/s as it comes to a plain socket through node, NATS, gateway and WebSocket with
// the same screen, read straight from its own socket. The node, NATS and the gateway are a process of their own.
func carried(ctx context.Context, b *bench, r *result) (err error) {
	dir, err := tempDir(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	paced, err := listenPlain(filepath.Join(dir, "paced"), func(_ context.Context, c net.Conn) error { return speak(c, sourceRate) })
	if err != nil {
		return err
	}
	defer paced.close()
	p, err := launchFake(dir, "-screen", paced.path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	starting, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := p.ready(starting); err != nil {
		return err
	}
	if _, err := p.must(ctx, "POST", "/api/vms?wait=30", map[string]any{"name": "c", "memory_mb": 64, "networks": []any{}, "start": true}); err != nil {
		return err
	}
	viewer, err := apiclient.New(apiclient.Place{DataDir: dir})
	if err != nil {
		return err
	}
	defer viewer.Close()
	through, err := listenPlain(filepath.Join(dir, "through"), func(ctx context.Context, c net.Conn) error {
		screen, err := viewer.OpenScreen(ctx, "c", true)
		if err != nil {
			return err
		}
		defer screen.Close()
		_, err = io.Copy(c, screen)
		return err
	})
	if err != nil {
		return err
	}
	defer through.close()

	size := int64(b.of(500e6, 50e6))
	node, straight := cpu{pid: p.cmd.Process.Pid}, cpu{pid: os.Getpid()}
	viewing := straight
	r.series, err = interleave(ctx, 1, b.of(6, 3),
		side{"through us", "MB/s", func(ctx context.Context, turn int) (v float64, err error) {
			err = errors.Join(node.count(turn > 0, func() error {
				return viewing.count(turn > 0, func() error { v, err = through.rate(ctx, size); return err })
			}))
			return v, err
		}},
		side{"straight from its socket", "MB/s", func(ctx context.Context, turn int) (v float64, err error) {
			err = straight.count(turn > 0, func() error { v, err = paced.rate(ctx, size); return err })
			return v, err
		}},
	)
	if err != nil {
		return err
	}
	us, bare := r.series[0], r.series[1]
	r.ratios = []ratio{
		atLeast("through us ÷ straight, p50", us.p50()/bare.p50(), 0.9, 0),
		reported("the slowest turn through us ÷ straight, p50", us.quantile(0)/bare.p50()),
		reported("CPU of node, NATS and gateway, in cores", node.share()),
		reported("CPU of source and viewer, in cores", viewing.share()),
		reported("CPU of source and reader, straight, in cores", straight.share()),
	}
	r.note("%d MB a turn; the source says %.0f MB/s and waits where nobody reads", size/1e6, sourceRate/1e6)
	return errors.Join(paced.failed(), through.failed())
}

// plain is a Unix socket that serves each connection in the same way.
type plain struct {
	path    string
	l       net.Listener
	stop    context.CancelFunc
	serving sync.WaitGroup
	mu      sync.Mutex
	errs    []error
}

func listenPlain(path string, serve func(context.Context, net.Conn) error) (*plain, error) {
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &plain{path: path, l: l, stop: stop}
	s.serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // it was closed
			}
			s.serving.Go(func() {
				defer c.Close()
				if err := serve(ctx, c); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) { // the reader has enough
					s.mu.Lock()
					s.errs = append(s.errs, err)
					s.mu.Unlock()
				}
			})
		}
	})
	return s, nil
}

func (s *plain) close() {
	s.stop()
	s.l.Close()
	s.serving.Wait()
}

func (s *plain) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.errs...)
}

// rate reads from a connection of its own and says how fast that went from the first bytes on, in MB/s.
func (s *plain) rate(ctx context.Context, size int64) (float64, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", s.path)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		return 0, errors.Join(err, s.failed())
	}
	begin := time.Now()
	if _, err := io.CopyN(io.Discard, c, size); err != nil {
		return 0, errors.Join(err, s.failed())
	}
	return float64(size) / 1e6 / time.Since(begin).Seconds(), nil
}

// speak writes bytes a second, until nobody reads. What could not be written in time is written as soon as it can.
func speak(w io.Writer, rate float64) error {
	block := make([]byte, 64<<10)
	begin := time.Now()
	for sent := 0; ; sent += len(block) {
		time.Sleep(time.Until(begin.Add(time.Duration(float64(sent) / rate * float64(time.Second)))))
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
}

// cpu counts what a process takes of the CPUs while something is done.
type cpu struct {
	pid        int
	used, wall time.Duration
}

// count runs f, and counts it unless that is only to warm up.
func (c *cpu) count(counts bool, f func() error) error {
	before, err := cpuTime(c.pid)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := f(); err != nil || !counts {
		return err
	}
	after, err := cpuTime(c.pid)
	c.used += after - before
	c.wall += time.Since(begin)
	return err
}

func (c *cpu) share() float64 { return c.used.Seconds() / c.wall.Seconds() }
