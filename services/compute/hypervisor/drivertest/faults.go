package drivertest

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

// watching returns the changes from now on.
func (c *cas) watching() <-chan hypervisor.Change {
	c.Helper()
	changes, err := c.d.Watch(c.Context())
	c.ok(err)
	return changes
}

// expect takes changes until the one of this domain with this state comes.
func (c *cas) expect(changes <-chan hypervisor.Change, id uuid.UUID, state hypervisor.State) hypervisor.Change {
	c.Helper()
	deadline := time.After(c.h.Patience)
	for {
		select {
		case ch, ok := <-changes:
			if !ok {
				c.Fatal("the watch ended")
			}
			if ch.ID == id && ch.State == state {
				if ch.Cause == "" || ch.At.IsZero() {
					c.Errorf("says neither why nor when: %+v", ch)
				}
				return ch
			}
		case <-deadline:
			c.Fatalf("no change to %q within %s", state, c.h.Patience)
		}
	}
}

// ends takes changes until the channel is closed.
func (c *cas) ends(changes <-chan hypervisor.Change) {
	c.Helper()
	deadline := time.After(c.h.Patience)
	for {
		select {
		case _, ok := <-changes:
			if !ok {
				return
			}
		case <-deadline:
			c.Fatal("the watch goes on")
		}
	}
}

func (s *suite) watch() {
	s.cas("TellsALife", func(c *cas) {
		changes := c.watching()
		spec := c.defined()
		c.expect(changes, spec.ID, hypervisor.Off)
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.expect(changes, spec.ID, hypervisor.Running)
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		if ch := c.expect(changes, spec.ID, hypervisor.Off); ch.Cause != "destroyed" {
			c.Errorf("the cause of a destroy is %q", ch.Cause)
		}
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		c.expect(changes, spec.ID, "")
	})
	s.cas("TellsACrash", func(c *cas) {
		spec := c.running()
		changes := c.watching()
		c.h.Crash(c.T, spec.ID)
		if ch := c.expect(changes, spec.ID, hypervisor.Crashed); ch.Cause != "crashed" {
			c.Errorf("the cause of a crash is %q", ch.Cause)
		}
	}, Crash)
	s.cas("EveryWatcher", func(c *cas) {
		first, second := c.watching(), c.watching()
		spec := c.running()
		c.expect(first, spec.ID, hypervisor.Running)
		c.expect(second, spec.ID, hypervisor.Running)
	})
	s.cas("LastChangeIsNeverLost", func(c *cas) {
		changes := c.watching()
		spec := c.defined()
		for range c.h.Burst { // and nobody reads
			c.ok(c.d.Start(c.ctx(), spec.ID))
			c.ok(c.d.Destroy(c.ctx(), spec.ID))
		}
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		c.expect(changes, spec.ID, "")
	})
	s.cas("EndsWithItsContext", func(c *cas) {
		ctx, cancel := context.WithCancel(c.Context())
		changes, err := c.d.Watch(ctx)
		c.ok(err)
		cancel()
		c.ends(changes)
	})
	s.cas("EndsWhenTheConnectionBreaks", func(c *cas) {
		changes := c.watching()
		restore := c.h.Break(c.T)
		defer restore()
		c.ends(changes)
	}, Break)
	s.cas("AgainAfterABreak", func(c *cas) {
		restore := c.h.Break(c.T)
		restore()
		var changes <-chan hypervisor.Change
		c.eventually("a watch", func() bool {
			var err error
			changes, err = c.d.Watch(c.Context())
			return err == nil
		})
		spec := c.defined()
		c.expect(changes, spec.ID, hypervisor.Off)
	}, Break, Persist)
}

func (s *suite) concurrent() {
	s.cas("ManyDomains", func(c *cas) {
		var all sync.WaitGroup
		for range 8 {
			spec := c.spec()
			all.Go(func() {
				_, err := c.d.Define(c.ctx(), spec)
				err = errors.Join(err, c.d.Start(c.ctx(), spec.ID), c.d.Destroy(c.ctx(), spec.ID),
					c.d.Undefine(c.ctx(), spec.ID))
				if err != nil {
					c.Error(err)
				}
			})
		}
		all.Wait()
	})
	s.cas("OneDomainStartedByMany", func(c *cas) {
		spec := c.defined()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if err := c.d.Start(c.ctx(), spec.ID); err != nil {
					c.Error(err)
				}
			})
		}
		all.Wait()
		c.see(spec.ID, hypervisor.Running)
	})
	s.cas("OneNameWantedByMany", func(c *cas) {
		var all sync.WaitGroup
		won := make(chan hypervisor.Domain, 8)
		name := c.spec().Name
		for range cap(won) {
			spec := c.spec()
			spec.Name = name
			all.Go(func() {
				dom, err := c.d.Define(c.ctx(), spec)
				switch {
				case err == nil:
					won <- dom
				case !errors.Is(err, hypervisor.ErrAlreadyExists):
					c.Error(err)
				}
			})
		}
		all.Wait()
		if len(won) != 1 {
			c.Errorf("%d domains have the one name", len(won))
		}
	})
}

// calls makes each call once and returns how it failed.
func calls(ctx context.Context, d hypervisor.Driver, spec hypervisor.Spec) map[string]error {
	_, info := d.Info(ctx)
	_, define := d.Define(ctx, spec)
	_, domain := d.Domain(ctx, spec.ID)
	_, domains := d.Domains(ctx)
	_, watch := d.Watch(ctx)
	return map[string]error{
		"Info": info, "Define": define, "Domain": domain, "Domains": domains, "Watch": watch,
		"Undefine":       d.Undefine(ctx, spec.ID),
		"Start":          d.Start(ctx, spec.ID),
		"Destroy":        d.Destroy(ctx, spec.ID),
		"Shutdown":       d.Shutdown(ctx, spec.ID),
		"SetAutostart":   d.SetAutostart(ctx, spec.ID, true),
		"SetDescription": d.SetDescription(ctx, spec.ID, "x"),
	}
}

func (s *suite) faults() {
	s.cas("ContextAlreadyEnded", func(c *cas) {
		spec := c.spec()
		ctx, cancel := context.WithCancel(c.Context())
		cancel()
		for name, err := range calls(ctx, c.d, spec) {
			if !errors.Is(err, context.Canceled) {
				c.Errorf("%s: %v", name, err)
			}
		}
		c.gone(spec.ID)
	})
	s.cas("ErrUnavailableWhileDownAndHeals", func(c *cas) {
		spec := c.running()
		restore := c.h.Break(c.T)
		defer restore()
		c.eventually("the driver notices", func() bool {
			_, err := c.d.Info(c.ctx())
			return err != nil
		})
		for name, err := range calls(c.ctx(), c.d, spec) {
			if !errors.Is(err, hypervisor.ErrUnavailable) {
				c.Errorf("%s: %v", name, err)
			}
		}
		restore()
		c.eventually("it heals", func() bool {
			_, err := c.d.Info(c.ctx())
			return err == nil
		})
		c.see(spec.ID, hypervisor.Running)
	}, Break, Persist)
	s.cas("SilenceEndsWithTheDeadline", func(c *cas) {
		spec := c.running()
		restore := c.h.Hang(c.T)
		defer restore()
		short := func() context.Context {
			ctx, cancel := context.WithTimeout(c.Context(), 100*time.Millisecond)
			c.Cleanup(cancel)
			return ctx
		}
		began := time.Now()
		_, err := c.d.Domain(short(), spec.ID)
		c.fails(err, hypervisor.ErrUnavailable)
		_, err = c.d.Domains(short())
		c.fails(err, hypervisor.ErrUnavailable)
		c.fails(c.d.Destroy(short(), spec.ID), hypervisor.ErrUnknown)
		if took := time.Since(began); took > c.h.Patience/2 {
			c.Errorf("three deadlines of 100 ms took %s", took)
		}
		restore()
		c.eventually("it heals", func() bool {
			_, err := c.d.Domain(c.ctx(), spec.ID)
			return err == nil
		})
	}, Hang)
}

func (s *suite) close() {
	s.cas("Twice", func(c *cas) {
		c.ok(c.d.Close())
		c.ok(c.d.Close())
	})
	s.cas("ErrUnavailableAfterwards", func(c *cas) {
		c.ok(c.d.Close())
		for name, err := range calls(c.ctx(), c.d, c.spec()) {
			if !errors.Is(err, hypervisor.ErrUnavailable) {
				c.Errorf("%s: %v", name, err)
			}
		}
	})
	s.cas("EndsWatches", func(c *cas) {
		changes := c.watching()
		c.ok(c.d.Close())
		c.ends(changes)
	})
	s.cas("EndsCallsUnderWay", func(c *cas) {
		c.ok(func() error { _, err := c.d.Info(c.ctx()); return err }())
		restore := c.h.Hang(c.T)
		defer restore()
		ended := make(chan error, 1)
		var all sync.WaitGroup
		all.Go(func() {
			_, err := c.d.Info(c.ctx())
			ended <- err
		})
		select {
		case err := <-ended:
			c.Fatalf("answered by a silent hypervisor: %v", err)
		case <-time.After(50 * time.Millisecond): // under way by now, or refused at once below: the same answer
		}
		c.ok(c.d.Close())
		all.Wait()
		c.fails(<-ended, hypervisor.ErrUnavailable)
	}, Hang)
}
