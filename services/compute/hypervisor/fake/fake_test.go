package fake_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	wire "horcrux/pkg/events/network"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/compute/network"
	"horcrux/services/compute/network/networktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	h := fake.New()
	h.AddNetwork(network.Definition{ID: uuid.New(), Spec: wire.Spec{Name: "default"}}, true)
	drivertest.Run(t, drivertest.Harness{
		Open:  func(*testing.T) hypervisor.Driver { return h.Driver() },
		Burst: 1000, Networks: []string{"default"},
		Break: func(*testing.T) func() {
			h.SetAvailable(false)
			return func() { h.SetAvailable(true) }
		},
		Hang: func(*testing.T) func() {
			h.SetDeaf(true)
			return func() { h.SetDeaf(false) }
		},
		Foreign: func(_ *testing.T, spec hypervisor.Spec) { h.Add(spec, hypervisor.Off, false) },
		Description: func(t *testing.T, id uuid.UUID) string {
			spec, ok := h.Spec(id)
			if !ok {
				t.Fatalf("no domain %s", id)
			}
			return spec.Description
		},
		Sees: func(t *testing.T, id uuid.UUID, running bool) hypervisor.Spec {
			see := h.Spec
			if running {
				see = h.Live
			}
			spec, ok := see(id)
			if !ok {
				t.Fatalf("no domain %s", id)
			}
			return spec
		},
		Volume: func(_ *testing.T, index int, size int64) hypervisor.Disk {
			return hypervisor.Disk{Index: index, Type: "file", Path: fmt.Sprintf("/%d", index), Format: "raw", SizeBytes: size, Bus: "virtio", Cache: "default", Discard: "unmap"}
		},
		Image: func(*testing.T) hypervisor.Disk {
			return hypervisor.Disk{Type: "file", Path: "/" + uuid.NewString(), Format: "qcow2", SizeBytes: 1 << 20, Bus: "virtio", Cache: "default", Discard: "unmap"}
		},
		Write: func(_ *testing.T, disk hypervisor.Disk, pattern byte) { h.Write(disk.Path, pattern) },
		Read:  func(_ *testing.T, disk hypervisor.Disk) byte { return h.Read(disk.Path) },
		Crash: func(_ *testing.T, id uuid.UUID) { h.Become(id, hypervisor.Crashed, "crashed") },
	})
}

func TestNetworks(t *testing.T) {
	h := fake.New()
	networktest.Run(t, networktest.Harness{
		Open:     func(*testing.T) networktest.Driver { return h.Driver() },
		Foreign:  func(_ *testing.T, d network.Definition) { h.AddNetwork(d, false) },
		Stop:     func(_ *testing.T, id uuid.UUID) { h.StopNetwork(id) },
		Undefine: func(_ *testing.T, id uuid.UUID) { h.UndefineNetwork(id) },
	})
}

func spec(name string) hypervisor.Spec {
	return hypervisor.Spec{ID: uuid.New(), Name: name, CPUs: 1, MemoryMB: 1}
}

func TestFaults(t *testing.T) {
	for _, tc := range []struct {
		name    string
		fault   fake.Fault
		started int
	}{
		{"BeforeTheEffect", fake.Fault{Method: "Start", When: fake.Before, Err: hypervisor.ErrUnknown}, 0},
		{"AfterTheEffect", fake.Fault{Method: "Start", When: fake.After, Err: hypervisor.ErrUnknown}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := fake.New()
			d := h.Driver()
			defer d.Close()
			s := spec("a")
			if _, err := d.Define(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			tc.fault.Domain = s.ID
			h.Inject(tc.fault)
			if err := d.Start(t.Context(), s.ID); !errors.Is(err, hypervisor.ErrUnknown) {
				t.Fatalf("got %v", err)
			}
			if got := h.Effects(s.ID).Started; got != tc.started {
				t.Errorf("%d effects, want %d", got, tc.started)
			}
			if err := d.Start(t.Context(), s.ID); err != nil {
				t.Fatalf("the fault struck twice: %v", err)
			}
			if got := h.Effects(s.ID).Started; got != 1 {
				t.Errorf("%d effects in the end", got)
			}
		})
	}
	t.Run("OtherDomainIsSpared", func(t *testing.T) {
		h := fake.New()
		d := h.Driver()
		defer d.Close()
		h.Inject(fake.Fault{Domain: uuid.New(), Err: hypervisor.ErrBusy, Times: 3})
		if _, err := d.Define(t.Context(), spec("a")); err != nil {
			t.Error(err)
		}
	})
	t.Run("LatencyBeyondTheDeadline", func(t *testing.T) {
		h := fake.New()
		d := h.Driver()
		defer d.Close()
		h.SetLatency(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		if _, err := d.Define(ctx, spec("a")); !errors.Is(err, hypervisor.ErrUnknown) {
			t.Errorf("got %v", err)
		}
	})
}

func TestTenThousandDomains(t *testing.T) {
	h := fake.New()
	d := h.Driver()
	defer d.Close()
	began := time.Now()
	var all sync.WaitGroup
	for w := range 8 {
		all.Go(func() {
			for i := range 1250 {
				s := spec(fmt.Sprintf("vm-%d-%d", w, i))
				if _, err := d.Define(t.Context(), s); err != nil {
					t.Error(err)
				}
				if err := d.Start(t.Context(), s.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	list, err := d.Domains(t.Context())
	if err != nil || len(list) != 10_000 {
		t.Fatalf("%d domains, %v", len(list), err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("took %s", took)
	}
}
