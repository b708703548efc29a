// Package system_test tries the whole of horcrux as its users do: a process of its own, REST over its socket, and
// libvirt, QEMU, Postgres and the file system asked for what really happened.
package system_test

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"
	"github.com/google/uuid"

	"horcrux/pkg/openapi/openapitest"
	"horcrux/test/instance"
)

var binary string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "horcrux-bin")
		if err == nil {
			defer os.RemoveAll(dir)
			binary, err = instance.Build(dir, "")
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}())
}

// qemuInstance is an instance with a libvirtd of its own. Every answer of it is held against the OpenAPI document.
func qemuInstance(t *testing.T) *instance.Instance {
	t.Helper()
	return newInstance(t, binary, "--libvirt-private", "yes", "--accelerator", "tcg")
}

// newInstance is an instance of a binary, on a free port, that is not running.
func newInstance(t *testing.T, binary string, args ...string) *instance.Instance {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons")
	}
	i := instance.New(t, binary, append([]string{"--listen", "127.0.0.1:0"}, args...)...)
	i.Check = openapitest.Load(t).CheckAnswer
	return i
}

// effects are what libvirt said happened to a domain.
type effects struct{ defined, started, stopped, undefined int }

// domains counts the lifecycle events of an instance's libvirtd, over a connection of its own.
type domains struct {
	mu   sync.Mutex
	seen map[string]*effects
}

func watchDomains(t *testing.T, i *instance.Instance) *domains {
	t.Helper()
	l := libvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(filepath.Join(i.Dir, "libvirt", "libvirt-sock"))))
	if err := l.ConnectToURI(libvirt.QEMUSystem); err != nil {
		t.Fatal(err)
	}
	events, err := l.LifecycleEvents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := &domains{seen: map[string]*effects{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for e := range events {
			d.count(e)
		}
	})
	t.Cleanup(func() {
		_ = l.Disconnect() // its libvirtd may be gone
		wg.Wait()
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

// volumeFiles lists the files in the pool `local`, temporary ones too.
func volumeFiles(t *testing.T, i *instance.Instance) (files []string) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(i.Dir, "volumes"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && d.Name() != ".horcrux-pool" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// openOperations counts the operations that have not ended.
func openOperations(i *instance.Instance) int {
	n := 0
	for _, state := range []string{"queued", "running"} {
		var list struct{ Items []struct{ ID string } }
		i.Get("/api/operations?state="+state, &list)
		n += len(list.Items)
	}
	return n
}
