package vm_test

import (
	"encoding/json"
	"testing"

	"horcrux/pkg/events/vm"
)

// TestSnapshots folds a life with snapshots as TestLife does.
func TestSnapshots(t *testing.T) {
	doc := json.RawMessage(created)
	a := vm.Taken{Name: "a", State: vm.StateStopped}
	const (
		inA = `{"name":"a","parent":null,"description":"","memory":false,"state":"stopped","created_at":"2026-11-22T12:00:03Z"}`
		inB = `{"name":"b","parent":"a","description":"before","memory":true,"state":"running","created_at":"2026-11-22T12:00:04Z"}`
	)
	for i, c := range []struct {
		event   any
		changed string
	}{
		{vm.SnapshotRequested{Intent: intent("vm.snapshot"), Taken: a}, `{}`},
		{vm.Snapshotted{Taken: a}, `{"snapshot":"a","snapshots":[` + inA + `]}`},
		{vm.Snapshotted{Taken: taken}, `{"snapshot":"b","snapshots":[` + inA + `,` + inB + `]}`},
		{vm.SnapshotFailed{Problem: noMemory, State: vm.StatePaused}, `{"observed_at":"2026-11-22T12:00:05Z","state":"paused"}`},
		{vm.RestoreRequested{Intent: intent("vm.restore_snapshot"), Restored: restored}, `{}`},
		{vm.RestoreFailed{Problem: noMemory, State: vm.StateRunning}, `{"observed_at":"2026-11-22T12:00:07Z","state":"running"}`},
		{vm.Restored{Name: "a", State: vm.StateStopped}, `{"observed_at":"2026-11-22T12:00:08Z","snapshot":"a","state":"stopped"}`},
		{restored, `{"description":"front","observed_at":"2026-11-22T12:00:09Z","pending":{"cpus":4},"snapshot":"b","state":"running","tags":["web","prod"]}`},
		{vm.SnapshotRemoveRequested{Intent: intent("vm.delete_snapshot"), SnapshotRemoved: vm.SnapshotRemoved{Name: "a"}}, `{}`},
		{vm.SnapshotRemoveFailed{Problem: noMemory, State: vm.StateRunning}, `{"observed_at":"2026-11-22T12:00:11Z"}`},
		{vm.SnapshotRemoved{Name: "a"}, `{"snapshots":[` + `{"name":"b","parent":null,"description":"before","memory":true,"state":"running","created_at":"2026-11-22T12:00:04Z"}` + `]}`},
		{vm.SnapshotRemoved{Name: "b"}, `{"snapshot":null,"snapshots":[]}`},
		{vm.SnapshotRemoved{Name: "b"}, `{}`},
	} {
		e := happened(i+2, c.event)
		next, deleted, err := vm.Resource.Apply(doc, e)
		if err != nil || deleted {
			t.Fatalf("%d %s: deleted %t, %v", e.Version, e.Type, deleted, err)
		}
		if got := diff(t, doc, next, e); got != c.changed {
			t.Errorf("%d %s changes\n%s, want\n%s", e.Version, e.Type, got, c.changed)
		}
		doc = next
	}
}
