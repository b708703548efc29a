package usage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/problem"
	wire "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// script is a driver that tells what a test says, after a while.
type script struct {
	calls atomic.Int64
	mu    sync.Mutex
	takes time.Duration
	stuck int64 // the call that hangs
	tell  func() ([]Domain, error)
}

func (s *script) Usage(ctx context.Context) ([]Domain, error) {
	s.mu.Lock()
	takes := s.takes
	if s.calls.Add(1) == s.stuck {
		takes = time.Hour
	}
	s.mu.Unlock()
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tell()
}

func (s *script) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// running runs a sampler for as long as the test lasts.
func running(t *testing.T, d Driver) *Sampler {
	s := New(d, Host(t.TempDir()), slog.New(slog.DiscardHandler), time.Now)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	synctest.Wait()
	return s
}

func ask(t *testing.T, s *Sampler, id uuid.UUID) wire.VM {
	t.Helper()
	v, err := s.vm(t.Context(), uuid.Nil, wire.Question{VM: id})
	if err != nil {
		t.Fatal(err)
	}
	return v.(wire.VM)
}

func TestManyCallersCostOneCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &script{takes: 100 * time.Millisecond, tell: func() ([]Domain, error) { return []Domain{busy(1, 0)}, nil }}
		s := running(t, d)
		time.Sleep(3 * time.Second)
		before := d.calls.Load()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() { ask(t, s, busy(1, 0).ID) })
		}
		wg.Wait()
		if n := d.calls.Load() - before; n != 1 {
			t.Errorf("100 at once cost %d calls", n)
		}
		ask(t, s, busy(1, 0).ID)
		if n := d.calls.Load() - before; n != 1 {
			t.Error("what is fresh is asked for again")
		}
		time.Sleep(fresh + d.takes)
		ask(t, s, busy(1, 0).ID)
		if n := d.calls.Load() - before; n != 2 {
			t.Errorf("what is old is told: %d calls", n)
		}
	})
}

// busy is a guest of one CPU with a disk and a card, all of whose counters stand at so many.
func busy(id byte, counters int64) Domain {
	s, n, one := float64(counters), counters, int64(1)
	return Domain{
		ID: uuid.UUID{15: id}, Name: fmt.Sprint("vm", id), State: hypervisor.Running, Run: 1,
		CPU:   wire.CPU{UsedS: &s, CPUs: &one},
		Disks: []wire.Disk{{Name: "vda", ReadBytes: &n, WriteBytes: &n, ReadOps: &n, WriteOps: &n}},
		NICs:  []wire.NIC{{Name: "vnet0", RxBytes: &n, TxBytes: &n, RxPackets: &n, TxPackets: &n}},
	}
}

func TestRatesAndHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		d := &script{}
		d.tell = func() ([]Domain, error) { // half a CPU
			dom := busy(1, int64(time.Since(begin).Seconds()))
			*dom.CPU.UsedS = time.Since(begin).Seconds() / 2
			return []Domain{dom}, nil
		}
		s := running(t, d)
		id := busy(1, 0).ID
		if v := ask(t, s, id); v.CPU.Percent != nil || v.Disks[0].ReadBytesRate != nil || v.NICs[0].RxBytesRate != nil {
			t.Errorf("a rate of one sample: %+v", v)
		}
		for range 7 { // whoever asks in between
			time.Sleep(4 * time.Second)
			if v := ask(t, s, id); v.CPU.Percent == nil || *v.CPU.Percent != 50 || *v.Disks[0].ReadBytesRate != 1 || *v.NICs[0].TxPacketsRate != 1 {
				t.Errorf("half busy it is %+v", v)
			}
		}
		history := func() []wire.Sample {
			h, err := s.vmHistory(t.Context(), uuid.Nil, wire.Question{VM: id})
			if err != nil {
				t.Fatal(err)
			}
			return h.(wire.History).Items
		}
		time.Sleep(3 * time.Second) // 31 s
		if h := history(); len(h) != 4 || h[0].CPUPercent != nil || *h[3].CPUPercent != 50 || *h[3].DiskReadRate != 1 || h[3].At.Sub(h[2].At) != period {
			t.Errorf("half a minute is %+v", h)
		}
		time.Sleep(2 * time.Hour)
		if h := history(); len(h) != samples || time.Since(h[0].At) > time.Hour || h[0].At.After(h[1].At) {
			t.Errorf("after two hours: %d samples from %s to %s", len(h), h[0].At, h[len(h)-1].At)
		}
		d.set(func() { d.tell = func() ([]Domain, error) { return nil, nil } })
		time.Sleep(2 * period)
		if _, err := s.vmHistory(t.Context(), uuid.Nil, wire.Question{VM: id}); problem.From(err) == nil || len(s.domains) != 0 {
			t.Errorf("of a domain that is gone: %v, %d rings", err, len(s.domains))
		}
	})
}

func TestAHypervisorThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &script{tell: func() ([]Domain, error) { return nil, errors.New("secret") }}
		s := running(t, d)
		for _, takes := range []time.Duration{0, time.Hour} { // it fails, it hangs
			d.set(func() { d.takes = takes })
			begin := time.Now()
			_, err := s.vm(t.Context(), uuid.Nil, wire.Question{})
			if p := problem.From(err); p == nil || p.Code != problem.HypervisorUnavailable || time.Since(begin) > lookTime {
				t.Errorf("%v after %s", err, time.Since(begin))
			}
		}
	})
	s := New(&script{}, "/", slog.New(slog.DiscardHandler), time.Now)
	if _, err := s.vm(t.Context(), uuid.Nil, wire.Question{}); problem.From(err) == nil {
		t.Errorf("asked before it runs: %v", err)
	}
}

// TestAHypervisorThatIsSlow: looks take so long that they may not follow upon each other, and what was seen a while ago is
// told rather than nothing.
func TestAHypervisorThatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const slow = 8 * time.Second
		d := &script{takes: slow, tell: func() ([]Domain, error) { return []Domain{busy(1, 1)}, nil }}
		s := running(t, d)
		first := ask(t, s, busy(1, 1).ID)
		if again := ask(t, s, busy(1, 1).ID); !again.At.Equal(first.At) {
			t.Error("what has just been seen is looked at again")
		}
		calls := d.calls.Load()
		time.Sleep(30 * slow)
		if n := d.calls.Load() - calls; n > 30/share+1 {
			t.Errorf("%d looks of %s in %s", n, slow, 30*slow)
		}
		ask(t, s, busy(1, 1).ID)
		d.set(func() { d.takes = time.Hour })
		time.Sleep(fresh + 2*slow)
		begin := time.Now()
		if v := ask(t, s, busy(1, 1).ID); time.Since(begin) > patience || begin.Sub(v.At) > recent {
			t.Errorf("after %s it is what was seen %s before", time.Since(begin), begin.Sub(v.At))
		}
	})
}

// TestAnEmulatorThatHangs: the call that meets it first does not hold up the answer.
func TestAnEmulatorThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &script{stuck: 2, tell: func() ([]Domain, error) { return []Domain{busy(1, 1)}, nil }}
		s := running(t, d)
		time.Sleep(2 * fresh)
		begin := time.Now()
		ask(t, s, busy(1, 1).ID)
		if took := time.Since(begin); took != lateTime || d.calls.Load() != 3 {
			t.Errorf("it took %s and %d calls", took, d.calls.Load())
		}
		time.Sleep(2 * fresh)
		begin = time.Now()
		if ask(t, s, busy(1, 1).ID); time.Since(begin) != 0 {
			t.Errorf("and %s afterwards", time.Since(begin))
		}
	})
}

func TestPages(t *testing.T) {
	const vms = 2000
	synctest.Test(t, func(t *testing.T) {
		d := &script{tell: func() (all []Domain, _ error) {
			for i := range vms {
				dom := busy(0, 1)
				dom.ID[14], dom.ID[15] = byte(i>>8), byte(i)
				dom.ID[13] = 1
				all = append(all, dom)
			}
			return all, nil
		}}
		s := running(t, d)
		seen, pages := map[string]bool{}, 0
		var q wire.Question
		for {
			a, err := s.page(t.Context(), uuid.UUID{1}, q)
			if err != nil {
				t.Fatal(err)
			}
			p := a.(wire.Page)
			size := 0
			for _, v := range p.VMs {
				seen[string(v)] = true
				size += len(v)
			}
			if size > pageSize || p.Node.ID != (uuid.UUID{1}) {
				t.Errorf("a page of %d bytes of %s", size, p.Node.ID)
			}
			if pages++; p.Next == nil {
				break
			}
			q.After = *p.Next
		}
		if len(seen) != vms || pages < 2 {
			t.Errorf("%d machines on %d pages", len(seen), pages)
		}
	})
}
