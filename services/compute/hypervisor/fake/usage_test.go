package fake_test

import (
	"testing"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/compute/usage/usagetest"
)

func TestUsage(t *testing.T) {
	h := fake.New()
	usagetest.Run(t, usagetest.Harness{Harness: drivertest.Harness{
		Open: func(*testing.T) hypervisor.Driver { return h.Driver() },
		Break: func(*testing.T) func() {
			h.SetAvailable(false)
			return func() { h.SetAvailable(true) }
		},
		Hang: func(*testing.T) func() {
			h.SetDeaf(true)
			return func() { h.SetDeaf(false) }
		},
		Foreign: func(_ *testing.T, spec hypervisor.Spec) { h.Add(spec, hypervisor.Off, false) },
	}})
}
