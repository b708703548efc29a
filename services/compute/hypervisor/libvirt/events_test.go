//go:build !no_qemu

package libvirt

import (
	"errors"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"

	"horcrux/services/compute/hypervisor"
)

func TestStateOf(t *testing.T) {
	for _, tc := range []struct {
		state  golibvirt.DomainState
		reason int32
		want   hypervisor.State
	}{
		{golibvirt.DomainRunning, 1, hypervisor.Running},
		{golibvirt.DomainBlocked, 0, hypervisor.Running},
		{golibvirt.DomainShutdown, 1, hypervisor.Running}, // QEMU is still there
		{golibvirt.DomainPaused, int32(golibvirt.DomainPausedUser), hypervisor.Paused},
		{golibvirt.DomainPaused, int32(golibvirt.DomainPausedStartingUp), hypervisor.Off},
		{golibvirt.DomainPmsuspended, 0, hypervisor.Paused},
		{golibvirt.DomainCrashed, 1, hypervisor.Crashed},
		{golibvirt.DomainShutoff, int32(golibvirt.DomainShutoffDestroyed), hypervisor.Off},
		{golibvirt.DomainShutoff, int32(golibvirt.DomainShutoffFailed), hypervisor.Off},
		{golibvirt.DomainShutoff, int32(golibvirt.DomainShutoffCrashed), hypervisor.Crashed},
		{golibvirt.DomainNostate, 0, hypervisor.Off},
	} {
		if got := stateOf(tc.state, tc.reason); got != tc.want {
			t.Errorf("%d/%d is %q, want %q", tc.state, tc.reason, got, tc.want)
		}
	}
}

func TestChangeOf(t *testing.T) {
	for _, tc := range []struct {
		event  golibvirt.DomainEventType
		detail int32
		state  hypervisor.State
		cause  string
		tells  bool
	}{
		{golibvirt.DomainEventDefined, int32(golibvirt.DomainEventDefinedAdded), hypervisor.Off, "defined", true},
		{golibvirt.DomainEventDefined, int32(golibvirt.DomainEventDefinedUpdated), "", "defined", false},
		{golibvirt.DomainEventUndefined, 0, "", "undefined", false},
		{golibvirt.DomainEventStarted, 0, hypervisor.Running, "started", true},
		{golibvirt.DomainEventSuspended, 0, hypervisor.Paused, "paused", true},
		{golibvirt.DomainEventResumed, 0, hypervisor.Running, "resumed", true},
		{golibvirt.DomainEventStopped, int32(golibvirt.DomainEventStoppedShutdown), hypervisor.Off, "shutdown", true},
		{golibvirt.DomainEventStopped, int32(golibvirt.DomainEventStoppedDestroyed), hypervisor.Off, "destroyed", true},
		{golibvirt.DomainEventStopped, int32(golibvirt.DomainEventStoppedFailed), "", "failed", false},
		{golibvirt.DomainEventCrashed, 0, hypervisor.Crashed, "crashed", true},
	} {
		c, tells, known := changeOf(tc.event, tc.detail)
		if !known || tells != tc.tells || c.State != tc.state || c.Cause != tc.cause {
			t.Errorf("%d/%d is %+v, tells %v", tc.event, tc.detail, c, tells)
		}
	}
	if _, _, known := changeOf(golibvirt.DomainEventShutdown, 0); known {
		t.Error("a guest on its way down was reported as a change")
	}
}

func TestMeaning(t *testing.T) {
	for code, want := range map[golibvirt.ErrorNumber]error{
		golibvirt.ErrNoDomain:             hypervisor.ErrNotFound,
		golibvirt.ErrOperationInvalid:     hypervisor.ErrConflict,
		golibvirt.ErrOperationTimeout:     hypervisor.ErrBusy,
		golibvirt.ErrNoMemory:             hypervisor.ErrExhausted,
		golibvirt.ErrAccessDenied:         hypervisor.ErrPermission,
		golibvirt.ErrOperationUnsupported: hypervisor.ErrUnsupported,
		golibvirt.ErrNoConnect:            hypervisor.ErrUnavailable,
		golibvirt.ErrXMLError:             hypervisor.ErrInvalid,
		golibvirt.ErrInternalError:        hypervisor.ErrInvalid,
	} {
		if got := meaning(golibvirt.Error{Code: uint32(code)}); !errors.Is(got, want) {
			t.Errorf("%d means %q, want %q", code, got, want)
		}
	}
	full := golibvirt.Error{Code: uint32(golibvirt.ErrSystemError), Message: "cannot write data to file '/x.xml': No space left on device"}
	if got := meaning(full); !errors.Is(got, hypervisor.ErrExhausted) {
		t.Errorf("%s means %q", full.Message, got)
	}
}
