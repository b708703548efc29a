package system_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/google/uuid"

	"horcrux/test/instance"
)

func libvirtSocket(i *instance.Instance) string {
	return filepath.Join(i.Dir, "libvirt", "libvirt-sock")
}

// virsh asks an instance's libvirtd as its administrator would, and returns the answer without the space around it.
func virsh(t *testing.T, i *instance.Instance, args ...string) string {
	t.Helper()
	out, err := tryVirsh(i, args...)
	if err != nil {
		t.Fatalf("virsh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryVirsh(i *instance.Instance, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "virsh", append([]string{"-c", "qemu+unix:///system?socket=" + libvirtSocket(i)}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// effects are what libvirt said happened to a domain.
type effects struct{ defined, started, stopped, paused, resumed, undefined int }

// domains counts the lifecycle events of an instance's libvirtd, over a connection of its own.
type domains struct {
	libvirt *libvirt.Libvirt
	wg      sync.WaitGroup
	mu      sync.Mutex
	seen    map[string]*effects
}

func watchDomains(t *testing.T, i *instance.Instance) *domains {
	t.Helper()
	l := libvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(libvirtSocket(i))))
	if err := l.ConnectToURI(libvirt.QEMUSystem); err != nil {
		t.Fatal(err)
	}
	events, err := l.LifecycleEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := &domains{libvirt: l, seen: map[string]*effects{}}
	d.wg.Go(func() {
		for e := range events {
			d.count(e)
		}
	})
	t.Cleanup(func() {
		_ = l.Disconnect() // its libvirtd may be gone
		d.wg.Wait()
	})
	return d
}

func (d *domains) count(e libvirt.DomainEventLifecycleMsg) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := uuid.UUID(e.Dom.UUID).String()
	if d.seen[id] == nil {
		d.seen[id] = &effects{}
	}
	switch libvirt.DomainEventType(e.Event) {
	case libvirt.DomainEventDefined:
		d.seen[id].defined++
	case libvirt.DomainEventStarted:
		d.seen[id].started++
	case libvirt.DomainEventStopped:
		d.seen[id].stopped++
	case libvirt.DomainEventSuspended:
		d.seen[id].paused++
	case libvirt.DomainEventResumed:
		if d.seen[id].paused > 0 { // a start tells of one too
			d.seen[id].resumed++
		}
	case libvirt.DomainEventUndefined:
		d.seen[id].undefined++
	}
}

func (d *domains) of(id string) effects {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e := d.seen[id]; e != nil {
		return *e
	}
	return effects{}
}

// transcript is what a console has said.
type transcript struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *transcript) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *transcript) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.String()
}

// console follows the serial console of a running domain until that, or the watch, ends.
func (d *domains) console(t *testing.T, name string) *transcript {
	t.Helper()
	dom, err := d.libvirt.DomainLookupByName(name)
	if err != nil {
		t.Fatal(err)
	}
	c := &transcript{}
	d.wg.Go(func() {
		err := d.libvirt.DomainOpenConsole(dom, nil, c, 0)
		fmt.Fprintf(c, "(the console ended: %v)", err) // the test looks at what was said
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console of %s said:\n%s", name, c)
		}
	})
	return c
}
