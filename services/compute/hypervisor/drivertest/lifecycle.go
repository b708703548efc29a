package drivertest

import (
	"context"
	"slices"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

func (s *suite) info() {
	s.cas("OK", func(c *cas) {
		info, err := c.d.Info(c.ctx())
		c.ok(err)
		if info.Name == "" || info.Version == "" {
			c.Errorf("nameless: %+v", info)
		}
		if info.CPUs < 1 || info.MemoryMB < 1 || info.MaxCPUs < 1 || len(info.Accelerators) == 0 {
			c.Errorf("can run nothing: %+v", info)
		}
	})
}

func (s *suite) networks() {
	s.cas("OK", func(c *cas) {
		names, err := c.d.Networks(c.ctx())
		c.ok(err)
		if !slices.Equal(names, c.h.Networks) {
			c.Errorf("networks are %q, want %q", names, c.h.Networks)
		}
	})
}

func (s *suite) define() {
	s.cas("OK", func(c *cas) {
		spec := c.spec()
		dom, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		want := hypervisor.Domain{
			ID: spec.ID, Name: spec.Name, NativeID: dom.NativeID, State: hypervisor.Off, Managed: true,
		}
		if dom != want || dom.NativeID == "" {
			c.Errorf("got %+v, want %+v", dom, want)
		}
		if seen := c.see(spec.ID, hypervisor.Off); seen != dom {
			c.Errorf("defined %+v, but observed %+v", dom, seen)
		}
	})
	s.cas("Autostart", func(c *cas) {
		spec := c.spec()
		spec.Autostart = true
		dom, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		if seen := c.see(spec.ID, hypervisor.Off); !dom.Autostart || seen != dom {
			c.Errorf("defined %+v, observed %+v", dom, seen)
		}
	})
	s.cas("Repeated", func(c *cas) {
		spec := c.spec()
		first, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		again, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		if again != first {
			c.Errorf("first %+v, then %+v", first, again)
		}
	})
	s.cas("ReplacesOff", func(c *cas) {
		spec := c.spec()
		spec.Autostart = true
		_, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		spec.Autostart, spec.MemoryMB = false, spec.MemoryMB*2
		_, err = c.d.Define(c.ctx(), spec)
		c.ok(err)
		if c.see(spec.ID, hypervisor.Off).Autostart {
			c.Error("the old domain is still there")
		}
	})
	s.cas("ReplacesUnderAnotherName", func(c *cas) {
		spec := c.defined()
		old := spec.Name
		spec.Name += "-b"
		_, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		if seen := c.see(spec.ID, hypervisor.Off); seen.Name != spec.Name {
			c.Errorf("is still called %s", seen.Name)
		}
		other := c.spec()
		other.Name = old
		_, err = c.d.Define(c.ctx(), other)
		c.ok(err)
	}, Rename)
	s.cas("ErrConflictWhileRunning", func(c *cas) {
		spec := c.running()
		_, err := c.d.Define(c.ctx(), spec)
		c.fails(err, hypervisor.ErrConflict)
		c.see(spec.ID, hypervisor.Running)
	})
	s.cas("ErrAlreadyExistsNameTaken", func(c *cas) {
		first, second := c.defined(), c.spec()
		second.Name = first.Name
		_, err := c.d.Define(c.ctx(), second)
		c.fails(err, hypervisor.ErrAlreadyExists)
		c.see(first.ID, hypervisor.Off)
		c.gone(second.ID)
	})
	s.cas("ErrAlreadyExistsNotOurs", func(c *cas) {
		spec := c.spec()
		c.h.Foreign(c.T, spec)
		_, err := c.d.Define(c.ctx(), spec)
		c.fails(err, hypervisor.ErrAlreadyExists)
		if c.see(spec.ID, hypervisor.Off).Managed {
			c.Error("a foreign domain became ours")
		}
	}, Foreign)
	for name, spoil := range map[string]func(*hypervisor.Spec){
		"NoCPUs":   func(s *hypervisor.Spec) { s.CPUs = 0 },
		"NoMemory": func(s *hypervisor.Spec) { s.MemoryMB = 0 },
		"NoName":   func(s *hypervisor.Spec) { s.Name = "" },
		"NoID":     func(s *hypervisor.Spec) { s.ID = uuid.Nil },
	} {
		s.cas("ErrInvalid"+name, func(c *cas) {
			spec := c.spec()
			id := spec.ID
			spoil(&spec)
			_, err := c.d.Define(c.ctx(), spec)
			c.fails(err, hypervisor.ErrInvalid)
			c.gone(id)
		})
	}
}

func (s *suite) undefine() {
	s.cas("OK", func(c *cas) {
		spec := c.defined()
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		c.gone(spec.ID)
	})
	s.cas("AfterRunning", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		c.gone(spec.ID)
	})
	s.cas("FreesTheName", func(c *cas) {
		spec := c.defined()
		c.ok(c.d.Undefine(c.ctx(), spec.ID))
		other := c.spec()
		other.Name = spec.Name
		_, err := c.d.Define(c.ctx(), other)
		c.ok(err)
	})
	s.cas("AbsentIsSuccess", func(c *cas) {
		c.ok(c.d.Undefine(c.ctx(), uuid.New()))
	})
	s.cas("ErrConflictWhileRunning", func(c *cas) {
		spec := c.running()
		c.fails(c.d.Undefine(c.ctx(), spec.ID), hypervisor.ErrConflict)
		c.see(spec.ID, hypervisor.Running)
	})
}

func (s *suite) start() {
	s.cas("OK", func(c *cas) {
		spec := c.defined()
		c.ok(c.d.Start(c.ctx(), spec.ID))
		if dom := c.see(spec.ID, hypervisor.Running); !dom.Managed || dom.Name != spec.Name {
			c.Errorf("lost its mark or name: %+v", dom)
		}
	})
	s.cas("RunningIsSuccess", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Running)
	})
	s.cas("AfterDestroy", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Running)
	})
	s.cas("AfterCrash", func(c *cas) {
		spec := c.running()
		c.h.Crash(c.T, spec.ID)
		c.eventually("the crash is seen", func() bool {
			dom, err := c.d.Domain(c.ctx(), spec.ID)
			c.ok(err)
			return dom.State == hypervisor.Crashed || dom.State == hypervisor.Off
		})
		c.ok(c.d.Start(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Running)
	}, Crash)
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.Start(c.ctx(), id) })
}

func (s *suite) destroy() {
	s.cas("OK", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Off)
	})
	s.cas("OffIsSuccess", func(c *cas) {
		spec := c.defined()
		c.ok(c.d.Destroy(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Off)
	})
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.Destroy(c.ctx(), id) })
}

func (s *suite) shutdown() {
	s.cas("OK", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Shutdown(c.ctx(), spec.ID))
	})
	s.cas("ErrConflictWhenOff", func(c *cas) {
		spec := c.defined()
		c.fails(c.d.Shutdown(c.ctx(), spec.ID), hypervisor.ErrConflict)
	})
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.Shutdown(c.ctx(), id) })
}

func (s *suite) pause() {
	s.holds(hypervisor.Paused, (*cas).running, hypervisor.Driver.Pause)
}

func (s *suite) resume() {
	s.holds(hypervisor.Running, func(c *cas) hypervisor.Spec {
		spec := c.running()
		c.ok(c.d.Pause(c.ctx(), spec.ID))
		return spec
	}, hypervisor.Driver.Resume)
}

// holds are the cases of a call that holds a domain's CPUs, or lets them go.
func (s *suite) holds(to hypervisor.State, given func(*cas) hypervisor.Spec, call func(hypervisor.Driver, context.Context, uuid.UUID) error) {
	s.cas("OK", func(c *cas) {
		spec := given(c)
		for range 2 { // what holds already is success
			c.ok(call(c.d, c.ctx(), spec.ID))
			c.see(spec.ID, to)
		}
	})
	s.cas("ErrConflictWhenOff", func(c *cas) {
		spec := c.defined()
		c.fails(call(c.d, c.ctx(), spec.ID), hypervisor.ErrConflict)
		c.see(spec.ID, hypervisor.Off)
	})
	s.notFound(func(c *cas, id uuid.UUID) error { return call(c.d, c.ctx(), id) })
}

func (s *suite) reset() {
	s.cas("OK", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Reset(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Running)
	}, Reset)
	s.cas("ErrConflictWhenOff", func(c *cas) {
		spec := c.defined()
		c.fails(c.d.Reset(c.ctx(), spec.ID), hypervisor.ErrConflict)
	}, Reset)
	s.cas("ErrNotFound", func(c *cas) { c.fails(c.d.Reset(c.ctx(), uuid.New()), hypervisor.ErrNotFound) }, Reset)
}

func (s *suite) reboot() {
	s.cas("OK", func(c *cas) {
		spec := c.running()
		c.ok(c.d.Reboot(c.ctx(), spec.ID))
		c.see(spec.ID, hypervisor.Running)
	})
	s.cas("ErrConflictWhenOff", func(c *cas) {
		spec := c.defined()
		c.fails(c.d.Reboot(c.ctx(), spec.ID), hypervisor.ErrConflict)
	})
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.Reboot(c.ctx(), id) })
}

func (s *suite) autostart() {
	for name, given := range map[string]func(*cas) hypervisor.Spec{"Off": (*cas).defined, "Running": (*cas).running} {
		s.cas(name, func(c *cas) {
			spec := given(c)
			for _, on := range []bool{true, true, false, false} {
				c.ok(c.d.SetAutostart(c.ctx(), spec.ID, on))
				dom, err := c.d.Domain(c.ctx(), spec.ID)
				c.ok(err)
				if dom.Autostart != on {
					c.Errorf("autostart is %v, want %v", dom.Autostart, on)
				}
			}
		})
	}
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.SetAutostart(c.ctx(), id, true) })
}

func (s *suite) description() {
	for name, given := range map[string]func(*cas) hypervisor.Spec{"Off": (*cas).defined, "Running": (*cas).running} {
		s.cas(name, func(c *cas) {
			spec := given(c)
			for _, text := range []string{"first", "a <b> & \"c\"\nü", ""} {
				c.ok(c.d.SetDescription(c.ctx(), spec.ID, text))
				if got := c.h.Description(c.T, spec.ID); got != text {
					c.Errorf("description is %q, want %q", got, text)
				}
			}
		}, Describe)
	}
	s.cas("AsDefined", func(c *cas) {
		spec := c.spec()
		spec.Description = "from the <start>"
		_, err := c.d.Define(c.ctx(), spec)
		c.ok(err)
		if got := c.h.Description(c.T, spec.ID); got != spec.Description {
			c.Errorf("description is %q", got)
		}
	}, Describe)
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.SetDescription(c.ctx(), id, "x") })
}

func (s *suite) domain() {
	s.notFound(func(c *cas, id uuid.UUID) error { _, err := c.d.Domain(c.ctx(), id); return err })
	s.cas("SeenByEveryDriver", func(c *cas) {
		spec := c.running()
		second := c.h.Open(c.T)
		defer second.Close()
		dom, err := second.Domain(c.ctx(), spec.ID)
		c.ok(err)
		if mine := c.see(spec.ID, hypervisor.Running); dom != mine {
			c.Errorf("one sees %+v, the other %+v", mine, dom)
		}
	})
	s.cas("OutlivesTheDriver", func(c *cas) {
		first := c.h.Open(c.T)
		spec := c.spec()
		_, err := first.Define(c.ctx(), spec)
		c.ok(err)
		c.ok(first.Start(c.ctx(), spec.ID))
		c.ok(first.Close())
		if dom := c.see(spec.ID, hypervisor.Running); !dom.Managed {
			c.Error("the mark is gone")
		}
	}, Persist)
}

func (s *suite) domains() {
	s.cas("AllWithTheirStates", func(c *cas) {
		off, on := c.defined(), c.running()
		c.ok(c.d.SetAutostart(c.ctx(), off.ID, true))
		all, err := c.d.Domains(c.ctx())
		c.ok(err)
		for _, spec := range []hypervisor.Spec{off, on} {
			i := slices.IndexFunc(all, func(d hypervisor.Domain) bool { return d.ID == spec.ID })
			if i < 0 {
				c.Fatalf("%s is missing in %+v", spec.Name, all)
			}
			one, err := c.d.Domain(c.ctx(), spec.ID)
			c.ok(err)
			if all[i] != one {
				c.Errorf("listed %+v, alone %+v", all[i], one)
			}
		}
	})
	s.cas("ThoseWithoutOurMarkToo", func(c *cas) {
		spec := c.spec()
		c.h.Foreign(c.T, spec)
		all, err := c.d.Domains(c.ctx())
		c.ok(err)
		i := slices.IndexFunc(all, func(d hypervisor.Domain) bool { return d.ID == spec.ID })
		if i < 0 || all[i].Managed {
			c.Errorf("missing or marked as ours: %+v", all)
		}
	}, Foreign)
}

func (s *suite) notFound(call func(*cas, uuid.UUID) error) {
	s.cas("ErrNotFound", func(c *cas) { c.fails(call(c, uuid.New()), hypervisor.ErrNotFound) })
}
