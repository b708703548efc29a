// Package drivertest holds what every hypervisor driver has to pass: a case for each sentence of hypervisor.Driver.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// Capability is something that a driver, or the place it is tested in, may lack. What lacks is named with its reason
// and the cases that need it are skipped, visibly.
type Capability string

// The capabilities.
const (
	// Break: Harness.Break can cut the hypervisor off.
	Break Capability = "break"
	// Hang: Harness.Hang can make the hypervisor take calls and answer none.
	Hang Capability = "hang"
	// Foreign: Harness.Foreign can define a domain without our mark.
	Foreign Capability = "foreign"
	// Describe: Harness.Description can read what SetDescription wrote.
	Describe Capability = "describe"
	// Crash: Harness.Crash can end a guest behind the driver's back.
	Crash Capability = "crash"
	// Reset: a running domain can be reset.
	Reset Capability = "reset"
	// Change: what runs can be changed.
	Change Capability = "change"
	// Snapshot: domains can be kept in snapshots.
	Snapshot Capability = "snapshot"
	// Persist: domains outlive the last connection.
	Persist Capability = "persist"
	// Rename: a domain that is defined again may have another name.
	Rename Capability = "rename"
)

// Harness connects the suite to one hypervisor.
type Harness struct {
	// Open returns a new driver of the hypervisor under test. The suite closes it.
	Open func(t *testing.T) hypervisor.Driver
	// Spec completes a spec, which has a fresh id and name, one CPU and 32 MiB, so that this hypervisor can run it.
	// nil leaves it as it is.
	Spec func(t *testing.T, spec *hypervisor.Spec)
	// Lacks names what is not there, and why.
	Lacks map[Capability]string
	// Patience is how long one call may take. 0 means 10 s.
	Patience time.Duration
	// Burst is how many starts and stops a case about many changes makes. 0 means 3.
	Burst int

	// Networks are those that a guest can be on.
	Networks []string

	// Break makes the hypervisor unavailable until restore is called.
	Break func(t *testing.T) (restore func())
	// Hang makes the hypervisor silent until restore is called.
	Hang func(t *testing.T) (restore func())
	// Foreign defines the spec, without our mark.
	Foreign func(t *testing.T, spec hypervisor.Spec)
	// Description reads a domain's description by other means than the driver.
	Description func(t *testing.T, id uuid.UUID) string
	// Sees reads a domain by other means than the driver: what runs, or what the next start has.
	Sees func(t *testing.T, id uuid.UUID, running bool) hypervisor.Spec
	// Volume makes a disk of a size in bytes that a guest can have.
	Volume func(t *testing.T, index int, size int64) hypervisor.Disk
	// Image makes a disk of 1 MiB that keeps snapshots. Write and Read go to its first bytes, past the hypervisor, of a
	// domain that is off.
	Image func(t *testing.T) hypervisor.Disk
	Write func(t *testing.T, disk hypervisor.Disk, pattern byte)
	Read  func(t *testing.T, disk hypervisor.Disk) byte
	// Crash ends a running guest by other means than the driver.
	Crash func(t *testing.T, id uuid.UUID)
	// Died says how the hypervisor itself ended since it was last asked, though nobody ended it, once it is back; ""
	// if it did not. A case that it takes with it says nothing about the driver, and is skipped, visibly. nil for a
	// hypervisor that does not die.
	Died func() string
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	if h.Patience == 0 {
		h.Patience = 10 * time.Second
	}
	if h.Burst == 0 {
		h.Burst = 3
	}
	groups := []struct {
		name string
		run  func(*suite)
	}{
		{"Info", (*suite).info},
		{"Networks", (*suite).networks},
		{"Define", (*suite).define},
		{"Undefine", (*suite).undefine},
		{"Start", (*suite).start},
		{"Destroy", (*suite).destroy},
		{"Shutdown", (*suite).shutdown},
		{"Pause", (*suite).pause},
		{"Resume", (*suite).resume},
		{"Reset", (*suite).reset},
		{"Reboot", (*suite).reboot},
		{"Configure", (*suite).configure},
		{"Adjust", (*suite).adjust},
		{"Adopt", (*suite).adopt},
		{"Describe", (*suite).describe},
		{"Snapshot", (*suite).snapshot},
		{"RestoreSnapshot", (*suite).restoreSnapshot},
		{"DeleteSnapshot", (*suite).deleteSnapshot},
		{"SetAutostart", (*suite).autostart},
		{"SetDescription", (*suite).description},
		{"Domain", (*suite).domain},
		{"Domains", (*suite).domains},
		{"Watch", (*suite).watch},
		{"Concurrent", (*suite).concurrent},
		{"Faults", (*suite).faults},
		{"Close", (*suite).close},
	}
	for _, g := range groups {
		t.Run(g.name, func(t *testing.T) { g.run(&suite{T: t, h: h}) })
	}
}

// suite is one group of cases.
type suite struct {
	*testing.T
	h Harness
}

// cas runs one case with a driver of its own.
func (s *suite) cas(name string, run func(c *cas), needs ...Capability) {
	s.T.Run(name, func(t *testing.T) {
		for _, n := range needs {
			if reason, lacks := s.h.Lacks[n]; lacks {
				t.Skipf("cannot %s: %s", n, reason)
			}
		}
		d := s.h.Open(t)
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
		c := &cas{T: t, h: s.h, d: d}
		run(c)
		if c.died {
			t.Skip("the hypervisor died under the case")
		}
	})
}

// cas is one case: a driver and what it needs to be short.
type cas struct {
	*testing.T
	h    Harness
	d    hypervisor.Driver
	died bool // the hypervisor, under the case
}

// excused says that a failure is the hypervisor's, which died.
func (c *cas) excused(failure string) bool {
	c.Helper()
	if !c.died && c.h.Died != nil {
		if how := c.h.Died(); how != "" {
			c.died = true
			c.Logf("the hypervisor died under the case: %s", how)
		}
	}
	if c.died {
		c.Log(failure)
	}
	return c.died
}

// Errorf hides that of testing.T.
func (c *cas) Errorf(format string, args ...any) {
	c.Helper()
	if !c.excused(fmt.Sprintf(format, args...)) {
		c.T.Errorf(format, args...)
	}
}

// Error hides that of testing.T.
func (c *cas) Error(args ...any) {
	c.Helper()
	c.Errorf("%s", fmt.Sprint(args...))
}

// Fatalf hides that of testing.T.
func (c *cas) Fatalf(format string, args ...any) {
	c.Helper()
	if c.excused(fmt.Sprintf(format, args...)) {
		c.SkipNow()
	}
	c.T.Fatalf(format, args...)
}

// Fatal hides that of testing.T.
func (c *cas) Fatal(args ...any) {
	c.Helper()
	c.Fatalf("%s", fmt.Sprint(args...))
}

// ctx ends when a call has taken longer than it may.
func (c *cas) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.Context(), c.h.Patience)
	c.Cleanup(cancel)
	return ctx
}

// spec returns a spec that can be run. What becomes of it is cleaned up, whatever the case does.
func (c *cas) spec() hypervisor.Spec {
	id := uuid.Must(uuid.NewV7())
	spec := hypervisor.Spec{
		ID: id, Name: "t-" + id.String()[24:], CPUs: 1, MemoryMB: 32, CPUModel: "host-model",
		Machine: "q35", Firmware: "bios", Accelerator: hypervisor.TCG,
	}
	if c.h.Spec != nil {
		c.h.Spec(c.T, &spec)
	}
	c.Cleanup(func() { c.discard(spec.ID) })
	return spec
}

// discard uses a driver of its own: the case may have closed or lamed the one it had.
func (c *cas) discard(id uuid.UUID) {
	d := c.h.Open(c.T)
	defer d.Close()
	ctx, cancel := context.WithTimeout(context.Background(), c.h.Patience)
	defer cancel()
	if err := d.Destroy(ctx, id); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		c.Errorf("clean up: %v", err)
	}
	if err := d.Undefine(ctx, id); err != nil {
		c.Errorf("clean up: %v", err)
	}
}

// defined returns the spec of a domain that is off.
func (c *cas) defined() hypervisor.Spec {
	c.Helper()
	spec := c.spec()
	if _, err := c.d.Define(c.ctx(), spec); err != nil {
		c.Fatalf("define: %v", err)
	}
	return spec
}

// running returns the spec of a domain that runs.
func (c *cas) running() hypervisor.Spec {
	c.Helper()
	spec := c.defined()
	c.ok(c.d.Start(c.ctx(), spec.ID))
	return spec
}

func (c *cas) ok(err error) {
	c.Helper()
	if err != nil {
		c.Fatalf("unexpected error: %v", err)
	}
}

// fails asserts the sentinel, and that it is the only one.
func (c *cas) fails(err, sentinel error) {
	c.Helper()
	if !errors.Is(err, sentinel) {
		c.Fatalf("got %v, want %q", err, sentinel)
	}
	for _, other := range Sentinels() {
		if !errors.Is(other, sentinel) && errors.Is(err, other) {
			c.Fatalf("%v is %q and %q", err, sentinel, other)
		}
	}
}

// see observes a domain and asserts its state.
func (c *cas) see(id uuid.UUID, state hypervisor.State) hypervisor.Domain {
	c.Helper()
	dom, err := c.d.Domain(c.ctx(), id)
	c.ok(err)
	if dom.State != state {
		c.Fatalf("domain is %q, want %q", dom.State, state)
	}
	return dom
}

// gone asserts that the hypervisor does not know the domain.
func (c *cas) gone(id uuid.UUID) {
	c.Helper()
	_, err := c.d.Domain(c.ctx(), id)
	c.fails(err, hypervisor.ErrNotFound)
}

// eventually polls until the condition holds or patience ends.
func (c *cas) eventually(what string, holds func() bool) {
	c.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(c.h.Patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			c.Fatalf("not within %s: %s", c.h.Patience, what)
		}
	}
}

// Sentinels are the errors that a driver may fail with, besides those of the context.
func Sentinels() []error {
	return []error{
		hypervisor.ErrNotFound, hypervisor.ErrAlreadyExists, hypervisor.ErrConflict, hypervisor.ErrBusy,
		hypervisor.ErrInvalid, hypervisor.ErrUnsupported, hypervisor.ErrUnavailable, hypervisor.ErrExhausted,
		hypervisor.ErrPermission, hypervisor.ErrUnknown,
	}
}
