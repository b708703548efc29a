//go:build !no_qemu

package libvirt_test

import (
	"net"
	"path/filepath"
	"sync"
	"testing"
)

// proxy stands between driver and daemon, so that a test can cut the line or fall silent on it.
type proxy struct {
	t        *testing.T
	path     string
	upstream string
	wg       sync.WaitGroup

	mu       sync.Mutex
	quiet    *sync.Cond
	silent   bool
	listener net.Listener
	conns    map[net.Conn]struct{}
}

func newProxy(t *testing.T, upstream string) *proxy {
	p := &proxy{t: t, path: filepath.Join(shortDir(t), "s"), upstream: upstream, conns: map[net.Conn]struct{}{}}
	p.quiet = sync.NewCond(&p.mu)
	p.listen()
	t.Cleanup(func() {
		p.silence(false)
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) listen() {
	l, err := net.Listen("unix", p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	p.wg.Go(func() {
		for {
			down, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", p.upstream)
			if err != nil {
				down.Close()
				continue
			}
			p.wg.Go(func() { p.copy(up, down) })
			p.wg.Go(func() { p.copy(down, up) })
		}
	})
}

func (p *proxy) copy(to, from net.Conn) {
	p.mu.Lock()
	p.conns[to] = struct{}{}
	p.mu.Unlock()
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		p.mu.Lock()
		for p.silent {
			p.quiet.Wait()
		}
		p.mu.Unlock()
		if err != nil {
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *proxy) silence(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.silent = on
	p.quiet.Broadcast()
}

// cut closes the listener and every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener.Close()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

// breakOff cuts until restore is called.
func (p *proxy) breakOff(*testing.T) (restore func()) {
	p.cut()
	return sync.OnceFunc(p.listen)
}

func (p *proxy) hang(*testing.T) (restore func()) {
	p.silence(true)
	return func() { p.silence(false) }
}
