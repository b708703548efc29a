package watch_test

import (
	"context"
	"testing"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/watch"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMergesPerDomainAndKeepsTheLast(t *testing.T) {
	hub := watch.New()
	defer hub.Close()
	slow := hub.Watch(t.Context())

	a, b := uuid.New(), uuid.New()
	for range 1000 {
		hub.Publish(hypervisor.Change{ID: a, State: hypervisor.Running})
		hub.Publish(hypervisor.Change{ID: b, State: hypervisor.Running})
		hub.Publish(hypervisor.Change{ID: a, State: hypervisor.Off})
	}
	hub.Publish(hypervisor.Change{ID: b, Cause: "undefined"})

	last, seen := map[uuid.UUID]hypervisor.Change{}, 0
	for last[a].State != hypervisor.Off || last[b].Cause != "undefined" {
		c := <-slow
		last[c.ID] = c
		seen++
	}
	// The pump may hold one change of each domain back from merging, and no more than that.
	if seen > 4 {
		t.Errorf("%d changes for two domains: not merged", seen)
	}
}

func TestEveryWatcherSeesEverything(t *testing.T) {
	hub := watch.New()
	defer hub.Close()
	first, second := hub.Watch(t.Context()), hub.Watch(t.Context())
	id := uuid.New()
	hub.Publish(hypervisor.Change{ID: id})
	if c := <-first; c.ID != id {
		t.Errorf("first got %v", c)
	}
	if c := <-second; c.ID != id {
		t.Errorf("second got %v", c)
	}
}

func TestEnds(t *testing.T) {
	t.Run("WithContext", func(t *testing.T) {
		hub := watch.New()
		defer hub.Close()
		ctx, cancel := context.WithCancel(t.Context())
		c := hub.Watch(ctx)
		cancel()
		if _, ok := <-c; ok {
			t.Error("still open")
		}
	})
	t.Run("WithHubWhileNobodyReads", func(t *testing.T) {
		hub := watch.New()
		c := hub.Watch(t.Context())
		hub.Publish(hypervisor.Change{ID: uuid.New()})
		hub.Close()
		for range c { // at most what was under way
		}
	})
	t.Run("ClosedHub", func(t *testing.T) {
		hub := watch.New()
		hub.Close()
		if _, ok := <-hub.Watch(t.Context()); ok {
			t.Error("a closed hub gave a change")
		}
	})
}
