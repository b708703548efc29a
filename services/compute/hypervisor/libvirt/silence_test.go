//go:build !no_qemu

package libvirt_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/libvirt"
)

func isInvalid(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, hypervisor.ErrInvalid) {
		t.Errorf("got %v, want %v", err, hypervisor.ErrInvalid)
	}
}

// A daemon that is silent for CallTimeout is given up even when its callers would wait for ever, and one that hangs
// during the first exchange even sooner.
func TestSilenceIsGivenUp(t *testing.T) {
	d := start(t)
	p := newProxy(t, d.Socket())
	drv, err := libvirt.Open(libvirt.Options{
		URI: "qemu+unix:///system?socket=" + p.path, CallTimeout: 200 * time.Millisecond, DialTimeout: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer drv.Close()
	eventually(t, "the daemon answers", func() bool { _, err := drv.Domains(t.Context()); return err == nil })
	changes, err := drv.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	p.silence(true)
	if _, err := drv.Domain(t.Context(), uuid.New()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("a look: %v", err)
	}
	if _, open := <-changes; open {
		t.Error("the watch outlived its connection")
	}
	if err := drv.Start(t.Context(), uuid.New()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("a start that cannot even connect: %v", err)
	}
	p.silence(false)
	eventually(t, "it heals", func() bool { _, err := drv.Domains(t.Context()); return err == nil })

	p.silence(true)
	if err := drv.Start(t.Context(), uuid.New()); !errors.Is(err, hypervisor.ErrUnknown) {
		t.Errorf("a start that was sent: %v", err)
	}
	p.silence(false)
}

// TestMutationsQueueHere: one too many is never sent, while what only looks and what ends a guest are.
func TestMutationsQueueHere(t *testing.T) {
	d := start(t)
	p := newProxy(t, d.Socket())
	drv, err := libvirt.Open(libvirt.Options{URI: "qemu+unix:///system?socket=" + p.path, Mutations: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer drv.Close()
	eventually(t, "the daemon answers", func() bool { _, err := drv.Domains(t.Context()); return err == nil })
	p.silence(true)
	defer p.silence(false)
	within := func(f func(context.Context, uuid.UUID) error) error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return f(ctx, uuid.New())
	}
	if err := within(drv.Start); !errors.Is(err, hypervisor.ErrUnknown) {
		t.Errorf("the first, which was sent: %v", err)
	}
	if err := within(drv.Start); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("the second, which was not: %v", err)
	}
	if err := within(drv.Destroy); !errors.Is(err, hypervisor.ErrUnknown) {
		t.Errorf("what ends a guest was not sent: %v", err)
	}
	p.silence(false) // what was sent is answered before the connection ends, which libvirt 9.0 does not always survive
	eventually(t, "the daemon answers again", func() bool { _, err := drv.Domains(t.Context()); return err == nil })
}

func TestOpenRefuses(t *testing.T) {
	for _, uri := range []string{
		"qemu+ssh://host/system", "qemu+tcp:///system", "qemu://host/system", "xen:///system", "qemu:", "", "%zz",
	} {
		if d, err := libvirt.Open(libvirt.Options{URI: uri}); err == nil {
			t.Errorf("%q was taken", uri)
			d.Close()
		}
	}
}

func TestNoDaemonIsUnavailable(t *testing.T) {
	d := open(t, "qemu+unix:///system?socket=/nonexistent/sock")
	defer d.Close()
	if _, err := d.Info(t.Context()); !errors.Is(err, hypervisor.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
}
