// Package usagetest holds what every usage.Driver has to pass.
package usagetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/usage"
)

// Harness is that of the hypervisor's own suite, whose drivers tell of usage too.
type Harness struct {
	drivertest.Harness
	// Freeze stops the emulator of a running guest until thaw is called; nil where guests have none.
	Freeze func(t *testing.T, id uuid.UUID) (thaw func())
}

// driver does both.
type driver interface {
	hypervisor.Driver
	usage.Driver
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	if h.Patience == 0 {
		h.Patience = 10 * time.Second
	}
	for name, run := range map[string]func(*suite){
		"AGuestThatIsOff": (*suite).off, "ARunningGuest": (*suite).running, "AnotherRun": (*suite).again, "Whose": (*suite).whose,
		"Unavailable": (*suite).unavailable, "Deadline": (*suite).deadline, "AFrozenEmulator": (*suite).frozen,
	} {
		t.Run(name, func(t *testing.T) {
			d, ok := h.Open(t).(driver)
			if !ok {
				t.Fatal("the driver tells nothing of usage")
			}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
			})
			run(&suite{T: t, h: h, d: d})
		})
	}
}

// suite is one case.
type suite struct {
	*testing.T
	h Harness
	d driver
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(s.Context(), s.h.Patience)
	s.Cleanup(cancel)
	return ctx
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatalf("unexpected error: %v", err)
	}
}

func (s *suite) spec() hypervisor.Spec {
	id := uuid.Must(uuid.NewV7())
	return hypervisor.Spec{
		ID: id, Name: "u-" + id.String()[24:], CPUs: 2, MemoryMB: 32, CPUModel: "host-model", Machine: "q35", Firmware: "bios",
		Accelerator: hypervisor.TCG,
	}
}

// defined is a domain that is off, and gone when the case is over.
func (s *suite) defined() hypervisor.Spec {
	s.Helper()
	spec := s.spec()
	if s.h.Spec != nil {
		s.h.Spec(s.T, &spec)
	}
	_, err := s.d.Define(s.ctx(), spec)
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), s.h.Patience)
		defer cancel()
		if err := s.d.Destroy(ctx, spec.ID); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
			s.Errorf("clean up: %v", err)
		}
		if err := s.d.Undefine(ctx, spec.ID); err != nil {
			s.Errorf("clean up: %v", err)
		}
	})
	s.ok(err)
	return spec
}

// see finds a domain among all.
func (s *suite) see(id uuid.UUID) *usage.Domain {
	s.Helper()
	all, err := s.d.Usage(s.ctx())
	s.ok(err)
	i := slices.IndexFunc(all, func(d usage.Domain) bool { return d.ID == id })
	if i < 0 {
		return nil
	}
	return &all[i]
}

func (s *suite) off() {
	spec := s.defined()
	d := s.see(spec.ID)
	if d == nil {
		s.Fatal("it is not told of")
	}
	if d.State != hypervisor.Off || d.Name != spec.Name {
		s.Errorf("told of as %+v", d)
	}
	if d.CPU.UsedS != nil || d.CPU.Percent != nil || d.Memory.BalloonMB != nil || d.Memory.RSSMB != nil || d.Memory.TotalMB != nil || !d.Told.IsZero() {
		s.Errorf("it uses something: %+v %+v", d.CPU, d.Memory)
	}
	s.ok(s.d.Undefine(s.ctx(), spec.ID))
	if d := s.see(spec.ID); d != nil {
		s.Errorf("gone, it is %+v", d)
	}
}

func (s *suite) running() {
	spec := s.defined()
	s.ok(s.d.Start(s.ctx(), spec.ID))
	d := s.see(spec.ID)
	if d == nil || d.State != hypervisor.Running {
		s.Fatalf("told of as %+v", d)
	}
	if d.CPU.UsedS == nil || *d.CPU.UsedS < 0 || d.CPU.CPUs == nil || *d.CPU.CPUs != int64(spec.CPUs) {
		s.Errorf("CPU %+v", d.CPU)
	}
	if m := d.Memory; m.AssignedMB == nil || *m.AssignedMB != spec.MemoryMB || m.BalloonMB == nil || *m.BalloonMB != spec.MemoryMB {
		s.Errorf("memory %+v", m)
	}
	if m := d.Memory; m.TotalMB != nil || m.AvailableMB != nil || m.FreeMB != nil || m.UsedMB != nil {
		s.Errorf("a guest without a driver tells of its memory: %+v", m)
	}
	if d.CPU.Percent != nil {
		s.Error("the driver knows a rate")
	}
	first := *d.CPU.UsedS
	for end := time.Now().Add(s.h.Patience); ; time.Sleep(10 * time.Millisecond) {
		d := s.see(spec.ID)
		if d.CPU.UsedS != nil && *d.CPU.UsedS > first {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("it uses no CPU time beyond %g s: %+v", first, d.CPU)
		}
	}
}

func (s *suite) again() {
	spec := s.defined()
	s.ok(s.d.Start(s.ctx(), spec.ID))
	first := s.see(spec.ID).Run
	if again := s.see(spec.ID).Run; again != first {
		s.Errorf("one run is %d and %d", first, again)
	}
	s.ok(s.d.Destroy(s.ctx(), spec.ID))
	s.ok(s.d.Start(s.ctx(), spec.ID))
	if second := s.see(spec.ID).Run; second == first {
		s.Errorf("two runs are %d", first)
	}
}

func (s *suite) whose() {
	if why, lacks := s.h.Lacks[drivertest.Foreign]; lacks {
		s.Skip(why)
	}
	foreign := s.spec()
	s.h.Foreign(s.T, foreign)
	defer func() { s.ok(s.d.Undefine(s.ctx(), foreign.ID)) }()
	ours := []hypervisor.Spec{s.defined(), s.defined(), s.defined()}
	all, err := s.d.Usage(s.ctx())
	s.ok(err)
	for _, spec := range append(ours, foreign) {
		n := 0
		for _, d := range all {
			if d.ID == spec.ID {
				n++
			}
		}
		if want := 1; n != want && spec.ID != foreign.ID || n != 0 && spec.ID == foreign.ID {
			s.Errorf("%s is told of %d times", spec.Name, n)
		}
	}
}

func (s *suite) unavailable() {
	if why, lacks := s.h.Lacks[drivertest.Break]; lacks {
		s.Skip(why)
	}
	restore := s.h.Break(s.T)
	_, err := s.d.Usage(s.ctx())
	restore()
	if !errors.Is(err, hypervisor.ErrUnavailable) {
		s.Errorf("got %v", err)
	}
	for end := time.Now().Add(s.h.Patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err = s.d.Usage(s.ctx()); err == nil {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("it does not heal: %v", err)
		}
	}
}

func (s *suite) deadline() {
	if why, lacks := s.h.Lacks[drivertest.Hang]; lacks {
		s.Skip(why)
	}
	_, err := s.d.Usage(s.ctx())
	s.ok(err)
	restore := s.h.Hang(s.T)
	defer restore()
	ctx, cancel := context.WithTimeout(s.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.d.Usage(ctx); !errors.Is(err, hypervisor.ErrUnavailable) {
		s.Errorf("got %v", err)
	}
}

func (s *suite) frozen() {
	if s.h.Freeze == nil {
		s.Skip("guests have no emulator")
	}
	stuck, other := s.defined(), s.defined()
	s.ok(s.d.Start(s.ctx(), stuck.ID))
	s.ok(s.d.Start(s.ctx(), other.ID))
	thaw := s.h.Freeze(s.T, stuck.ID)
	defer thaw()
	ctx, cancel := context.WithTimeout(s.Context(), time.Second)
	defer cancel()
	if _, err := s.d.Usage(ctx); err != nil && !errors.Is(err, hypervisor.ErrUnavailable) {
		s.Errorf("the call that meets it first: %v", err)
	}
	for range 2 { // from now on
		if d := s.see(other.ID); d == nil || d.CPU.UsedS == nil || d.Memory.BalloonMB == nil {
			s.Errorf("of the other it tells %+v", d)
		}
		if d := s.see(stuck.ID); d == nil || d.State != hypervisor.Running {
			s.Errorf("of the one that hangs it tells %+v", d)
		}
	}
}
