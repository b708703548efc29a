package drivertest

import (
	"reflect"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
)

const mib = 1 << 20

// configured asserts what others see of a domain: the part of it that Configure and Adjust change.
func (c *cas) configured(want hypervisor.Spec, running bool) {
	c.Helper()
	part := func(s hypervisor.Spec) hypervisor.Spec {
		out := hypervisor.Spec{CPUs: s.CPUs, MemoryMB: s.MemoryMB, Disks: s.Disks, NICs: s.NICs}
		if running {
			out.MemoryMB = 0 // the guest gives back what it can
		}
		return out
	}
	got := part(c.h.Sees(c.T, want.ID, running))
	if !reflect.DeepEqual(got, part(want)) {
		c.Fatalf("others see (running: %t)\n%+v, want\n%+v", running, got, part(want))
	}
}

func (s *suite) configure() {
	for name, given := range map[string]func(*cas) hypervisor.Spec{"Off": (*cas).changeable, "Running": (*cas).changeableRunning} {
		s.cas(name, func(c *cas) {
			spec := given(c)
			before := spec
			spec.CPUs, spec.MemoryMB = 1, spec.MemoryMB*2
			spec.Disks = append(spec.Disks[:0:0], spec.Disks...)
			spec.Disks = append(spec.Disks, c.h.Volume(c.T, 3, mib))
			spec.Gone = hypervisor.Devices{NICs: spec.NICs}
			spec.NICs = append(spec.NICs[:0:0], hypervisor.NIC{Network: c.h.Networks[0], Model: "virtio", MAC: "52:54:00:aa:00:02", LinkDown: true})
			for range 2 {
				c.ok(c.d.Configure(c.ctx(), spec))
				c.configured(spec, false)
			}
			if name == "Running" {
				c.configured(before, true)
			}
			c.ok(c.d.Destroy(c.ctx(), spec.ID))
			c.ok(c.d.Start(c.ctx(), spec.ID))
			c.configured(spec, true)
			if dom := c.see(spec.ID, hypervisor.Running); !dom.Managed {
				c.Error("lost its mark")
			}
		}, Change)
	}
	s.cas("ErrInvalid", func(c *cas) {
		spec := c.changeable()
		spec.CPUs = 100_000
		c.fails(c.d.Configure(c.ctx(), spec), hypervisor.ErrInvalid)
	}, Change)
	s.cas("ErrNotFound", func(c *cas) { c.fails(c.d.Configure(c.ctx(), c.spec()), hypervisor.ErrNotFound) })
}

func (s *suite) adjust() {
	s.cas("OffIsSuccess", func(c *cas) {
		spec := c.changeable()
		before := spec
		spec.CPUs = 2
		c.ok(c.d.Adjust(c.ctx(), spec))
		c.configured(before, false)
	}, Change)
	s.cas("CPUs", func(c *cas) {
		spec := c.changeableRunning()
		spec.CPUs = 2
		for range 2 {
			c.ok(c.d.Adjust(c.ctx(), spec))
			c.configured(spec, true)
		}
	}, Change)
	s.cas("Links", func(c *cas) {
		spec := c.changeableRunning()
		for _, down := range []bool{true, true, false} {
			spec.NICs = []hypervisor.NIC{spec.NICs[0]}
			spec.NICs[0].LinkDown = down
			c.ok(c.d.Adjust(c.ctx(), spec))
			c.configured(spec, true)
		}
	}, Change)
	s.cas("DisksComeGrowAndAreLimited", func(c *cas) {
		spec := c.changeableRunning()
		spec.Disks = append(spec.Disks[:1:1], c.h.Volume(c.T, 5, mib))
		c.ok(c.d.Adjust(c.ctx(), spec))
		c.configured(spec, true)
		spec.Disks = append(spec.Disks[:0:0], spec.Disks...)
		spec.Disks[1].SizeBytes, spec.Disks[1].Limits = 3*mib, hypervisor.Limits{ReadIOPS: 100, WriteBytes: mib}
		for range 2 {
			c.ok(c.d.Adjust(c.ctx(), spec))
			c.configured(spec, true)
		}
	}, Change)
	s.cas("NICsCome", func(c *cas) {
		spec := c.changeableRunning()
		spec.NICs = append(spec.NICs[:1:1], hypervisor.NIC{Network: c.h.Networks[0], Model: "virtio", MAC: "52:54:00:aa:00:03"})
		for range 2 {
			c.ok(c.d.Adjust(c.ctx(), spec))
			c.configured(spec, true)
		}
	}, Change)
	s.cas("WhatIsNotNamedStays", func(c *cas) {
		spec := c.changeableRunning()
		both := spec
		both.NICs = append(spec.NICs[:1:1], hypervisor.NIC{Network: c.h.Networks[0], Model: "virtio", MAC: "52:54:00:aa:00:04"})
		c.ok(c.d.Adjust(c.ctx(), both))
		c.ok(c.d.Configure(c.ctx(), both))
		c.ok(c.d.Adjust(c.ctx(), spec))
		c.ok(c.d.Configure(c.ctx(), spec))
		c.configured(both, true)
		c.configured(both, false)
	}, Change)
	s.cas("ErrNotFound", func(c *cas) { c.fails(c.d.Adjust(c.ctx(), c.spec()), hypervisor.ErrNotFound) })
}

// changeable is a domain that is off, with a disk and a NIC.
func (c *cas) changeable() hypervisor.Spec {
	c.Helper()
	spec := c.spec()
	spec.MaxCPUs = 2
	spec.Disks = []hypervisor.Disk{c.h.Volume(c.T, 0, mib)}
	spec.NICs = []hypervisor.NIC{{Network: c.h.Networks[0], Model: "virtio", MAC: "52:54:00:aa:00:01"}}
	if _, err := c.d.Define(c.ctx(), spec); err != nil {
		c.Fatalf("define: %v", err)
	}
	return spec
}

func (c *cas) changeableRunning() hypervisor.Spec {
	c.Helper()
	spec := c.changeable()
	c.ok(c.d.Start(c.ctx(), spec.ID))
	return spec
}

func (s *suite) adopt() {
	s.cas("OK", func(c *cas) {
		spec := c.spec()
		c.h.Foreign(c.T, spec)
		for range 2 { // what holds already is success
			c.ok(c.d.Adopt(c.ctx(), spec.ID))
			if !c.see(spec.ID, hypervisor.Off).Managed {
				c.Error("is not ours")
			}
		}
	}, Foreign)
	s.notFound(func(c *cas, id uuid.UUID) error { return c.d.Adopt(c.ctx(), id) })
}

func (s *suite) describe() {
	s.cas("WhatWasDefined", func(c *cas) {
		spec := c.changeable()
		d, err := c.d.Describe(c.ctx(), spec.ID, 0)
		c.ok(err)
		if n := d.Next; d.Running != nil || d.Transient || !d.Managed || n.CPUs != 1 || n.MaxCPUs != 2 || n.MemoryMB != spec.MemoryMB ||
			len(n.Disks) != 1 || n.Disks[0].Path != spec.Disks[0].Path || len(n.NICs) != 1 || n.NICs[0].MAC != spec.NICs[0].MAC {
			c.Errorf("described as %+v", d)
		}
	}, Change)
	s.cas("OnlyWhatIsNew", func(c *cas) {
		spec := c.changeableRunning()
		d, err := c.d.Describe(c.ctx(), spec.ID, 0)
		c.ok(err)
		if d.Running == nil || d.Version == 0 {
			c.Fatalf("described as %+v", d)
		}
		again, err := c.d.Describe(c.ctx(), spec.ID, d.Version)
		c.ok(err)
		if again.Version != d.Version || again.Running != nil {
			c.Errorf("told again: %+v", again)
		}
		spec.CPUs = 2
		c.ok(c.d.Adjust(c.ctx(), spec))
		d, err = c.d.Describe(c.ctx(), spec.ID, again.Version)
		c.ok(err)
		if d.Running == nil || d.Running.CPUs != 2 || d.Next.CPUs != 1 {
			c.Errorf("with another CPU it is %+v", d)
		}
		again, err = c.d.Describe(c.ctx(), spec.ID, d.Version)
		c.ok(err)
		if again.Running != nil {
			c.Errorf("told again: %+v", again)
		}
		spec.MaxCPUs = 3
		c.ok(c.d.Configure(c.ctx(), spec))
		c.eventually("what the next start has is told", func() bool {
			next, err := c.d.Describe(c.ctx(), spec.ID, d.Version)
			c.ok(err)
			return next.Version != d.Version && next.Next.MaxCPUs == 3
		})
	}, Change)
	s.notFound(func(c *cas, id uuid.UUID) error { _, err := c.d.Describe(c.ctx(), id, 0); return err })
}
