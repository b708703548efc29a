// Package networktest holds what every driver of networks has to pass: a case for each sentence of network.Driver.
package networktest

import (
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/network"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
)

// Driver is a hypervisor that keeps networks.
type Driver interface {
	network.Driver
	hypervisor.Driver
}

// Harness connects the suite to one hypervisor.
type Harness struct {
	// Open returns a new driver of the hypervisor under test. The suite closes it.
	Open func(t *testing.T) Driver
	// Foreign defines a network without our mark, by other means than the driver.
	Foreign func(t *testing.T, d network.Definition)
	// Stop and Undefine do to a network what others do with it. The suite removes it.
	Stop, Undefine func(t *testing.T, id uuid.UUID)
	// Check looks, by other means, whether the node has what an active network means; nil for a fake.
	Check func(t *testing.T, d network.Definition, active bool)
	// Spec completes that of a guest that is to run; nil leaves it as it is.
	Spec func(spec *hypervisor.Spec)
}

// Run runs the suite.
func Run(t *testing.T, h Harness) {
	for _, c := range []struct {
		name string
		run  func(*suite)
	}{
		{"LivesFromDefineToRemove", (*suite).lives},
		{"DescribesWhatWasDefined", (*suite).describes},
		{"RepeatsAreSuccess", (*suite).repeats},
		{"RemoveOfNothingIsSuccess", (*suite).removesNothing},
		{"StartOfNothingIsNotFound", (*suite).nothing},
		{"NamesAreTakenOnce", (*suite).names},
		{"OthersAreSeenWithoutOurMark", (*suite).others},
		{"WhatOthersDoIsSeen", (*suite).drift},
		{"UndefinedWhileActiveComesBack", (*suite).transient},
		{"GuestsAreNamed", (*suite).guests},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := h.Open(t)
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
			c.run(&suite{T: t, Harness: h, d: d})
		})
	}
}

type suite struct {
	*testing.T
	Harness
	d Driver
}

const patience = 60 * time.Second

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	s.Cleanup(cancel)
	return ctx
}

// definition is a network that nobody else has. It is removed when the case ends.
func (s *suite) definition() network.Definition {
	id := uuid.New()
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 198, id[0], 1}), 24)
	v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x98, id[0], id[1], id[2], id[3], 15: 1}), 64)
	d := network.Definition{ID: id, Spec: wire.Spec{
		Name: "t-" + id.String()[:8], Mode: wire.ModeNAT, Bridge: network.BridgeName(id), IPv4: &v4, IPv6: &v6, DHCP: true,
	}}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		drv := s.Open(s.T)
		defer drv.Close()
		if err := drv.RemoveNetwork(ctx, id); err != nil {
			s.Errorf("clean up: %v", err)
		}
	})
	return d
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) fails(err, sentinel error) {
	s.Helper()
	if !errors.Is(err, sentinel) {
		s.Fatalf("got %v, want %v", err, sentinel)
	}
}

// is compares what the list tells of a network.
func (s *suite) is(id uuid.UUID, defined, active bool) {
	s.Helper()
	all, err := s.d.NetworkStates(s.ctx())
	s.must(err)
	i := slices.IndexFunc(all, func(n network.Seen) bool { return n.ID == id })
	switch {
	case i < 0 && (defined || active):
		s.Fatalf("it is not there")
	case i >= 0 && (all[i].Defined != defined || all[i].Active != active):
		s.Fatalf("it is %+v", all[i])
	}
}

func (s *suite) world(d network.Definition, active bool) {
	s.Helper()
	if s.Check != nil {
		s.Check(s.T, d, active)
	}
}

func (s *suite) lives() {
	d := s.definition()
	s.must(s.d.DefineNetwork(s.ctx(), d))
	s.is(d.ID, true, false)
	s.world(d, false)
	s.must(s.d.StartNetwork(s.ctx(), d.ID))
	s.is(d.ID, true, true)
	s.world(d, true)
	names, err := s.d.Networks(s.ctx())
	s.must(err)
	if !slices.Contains(names, d.Name) {
		s.Errorf("guests can be on %q", names)
	}
	s.must(s.d.RemoveNetwork(s.ctx(), d.ID))
	s.is(d.ID, false, false)
	s.world(d, false)
}

func (s *suite) describes() {
	isolated := s.definition()
	isolated.Mode, isolated.IPv6, isolated.DHCP = wire.ModeIsolated, nil, false
	bare := s.definition()
	bare.Mode, bare.IPv4, bare.IPv6, bare.DHCP = wire.ModeIsolated, nil, nil, false
	bridged := s.definition()
	bridged.Mode, bridged.IPv4, bridged.IPv6, bridged.DHCP = wire.ModeBridge, nil, nil, false
	for _, want := range []network.Definition{s.definition(), isolated, bare, bridged} {
		s.must(s.d.DefineNetwork(s.ctx(), want))
		got, ours, err := s.d.DescribeNetwork(s.ctx(), want.ID)
		s.must(err)
		if !ours || !reflect.DeepEqual(got, want) {
			s.Errorf("got %+v, ours %t, want %+v", got, ours, want)
		}
	}
}

func (s *suite) repeats() {
	d := s.definition()
	for range 2 {
		s.must(s.d.DefineNetwork(s.ctx(), d))
		s.must(s.d.StartNetwork(s.ctx(), d.ID))
		s.is(d.ID, true, true)
	}
}

func (s *suite) removesNothing() { s.must(s.d.RemoveNetwork(s.ctx(), uuid.New())) }

func (s *suite) nothing() {
	s.fails(s.d.StartNetwork(s.ctx(), uuid.New()), hypervisor.ErrNotFound)
	_, _, err := s.d.DescribeNetwork(s.ctx(), uuid.New())
	s.fails(err, hypervisor.ErrNotFound)
	_, err = s.d.NetworkGuests(s.ctx(), uuid.New())
	s.fails(err, hypervisor.ErrNotFound)
}

func (s *suite) names() {
	a, b := s.definition(), s.definition()
	b.Name = a.Name
	s.must(s.d.DefineNetwork(s.ctx(), a))
	s.fails(s.d.DefineNetwork(s.ctx(), b), hypervisor.ErrAlreadyExists)
	s.is(b.ID, false, false)
}

func (s *suite) others() {
	d := s.definition()
	s.Foreign(s.T, d)
	s.is(d.ID, true, false)
	got, ours, err := s.d.DescribeNetwork(s.ctx(), d.ID)
	s.must(err)
	if ours || got.Name != d.Name || got.Mode != d.Mode || *got.IPv4 != *d.IPv4 {
		s.Errorf("got %+v, ours %t", got, ours)
	}
}

func (s *suite) drift() {
	d := s.definition()
	s.must(s.d.DefineNetwork(s.ctx(), d))
	s.must(s.d.StartNetwork(s.ctx(), d.ID))
	s.Stop(s.T, d.ID)
	s.is(d.ID, true, false)
	s.Undefine(s.T, d.ID)
	s.is(d.ID, false, false)
}

func (s *suite) transient() {
	d := s.definition()
	s.must(s.d.DefineNetwork(s.ctx(), d))
	s.must(s.d.StartNetwork(s.ctx(), d.ID))
	s.Undefine(s.T, d.ID)
	s.is(d.ID, false, true)
	s.must(s.d.DefineNetwork(s.ctx(), d))
	s.is(d.ID, true, true)
	s.Undefine(s.T, d.ID)
	s.must(s.d.RemoveNetwork(s.ctx(), d.ID))
	s.is(d.ID, false, false)
}

func (s *suite) guests() {
	d := s.definition()
	s.must(s.d.DefineNetwork(s.ctx(), d))
	s.must(s.d.StartNetwork(s.ctx(), d.ID))
	spec := hypervisor.Spec{
		ID: uuid.New(), Name: "g-" + d.Name, CPUs: 1, MemoryMB: 32, Accelerator: hypervisor.TCG,
		NICs: []hypervisor.NIC{{Network: d.Name, Model: "virtio"}},
	}
	if s.Spec != nil {
		s.Spec(&spec)
	}
	if _, err := s.d.Define(s.ctx(), spec); err != nil {
		s.Fatal(err)
	}
	defer func() {
		s.must(s.d.Destroy(s.ctx(), spec.ID))
		s.must(s.d.Undefine(s.ctx(), spec.ID))
	}()
	on := func(want ...string) {
		s.Helper()
		got, err := s.d.NetworkGuests(s.ctx(), d.ID)
		s.must(err)
		if !slices.Equal(got, want) {
			s.Errorf("on it are %q, want %q", got, want)
		}
	}
	on()
	s.must(s.d.Start(s.ctx(), spec.ID))
	on(spec.Name)
}
