package compute_test

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/fake"
)

func TestSnapshots(t *testing.T) {
	made := func(t *testing.T, start bool) (*node, uuid.UUID) {
		n := newNode(t)
		id := events.NewID()
		d := machine("web", 1)
		d.Start = start
		n.want(n.ask("create", id, d, time.Minute), "")
		return n, id
	}
	take := func(n *node, id uuid.UUID, name string, memory bool, code problem.Code) {
		n.Helper()
		n.want(n.ask("snapshot", id, wire.SnapshotData{Name: name, Memory: memory}, time.Minute), code)
	}
	at := func(n *node, id uuid.UUID) []hypervisor.Snapshot {
		n.Helper()
		d := n.h.Driver()
		defer d.Close()
		all, err := d.Snapshots(n.Context(), id)
		if err != nil {
			n.Fatal(err)
		}
		return all
	}
	t.Run("come about once, whatever is heard of them", func(t *testing.T) {
		n, id := made(t, false)
		for _, method := range []string{"Snapshot", "RestoreSnapshot", "DeleteSnapshot"} {
			for _, when := range []fake.When{fake.Before, fake.After} {
				n.h.Inject(fake.Fault{Method: method, When: when, Err: hypervisor.ErrUnknown})
			}
		}
		take(n, id, "a", false, "")
		n.want(n.ask("restore_snapshot", id, wire.SnapshotNameData{Name: "a"}, time.Minute), "")
		n.want(n.ask("delete_snapshot", id, wire.SnapshotNameData{Name: "a"}, time.Minute), "")
		// A restore leaves nothing by which it would be recognised: it is done again, to the same end.
		if e := n.h.Effects(id); e.Snapshot != 1 || e.Restored != 2 || e.SnapshotDeleted != 1 {
			t.Errorf("%+v", e)
		}
		if v := n.vm(id); len(v.Snapshots) != 0 || v.Snapshot != nil {
			t.Errorf("%+v", v)
		}
	})
	t.Run("one that failed leaves nothing", func(t *testing.T) {
		n, id := made(t, true)
		n.h.Inject(fake.Fault{Method: "Resume", When: fake.Before, Err: hypervisor.ErrPermission})
		take(n, id, "a", true, problem.EffectFailed)
		if v := n.vm(id); len(at(n, id)) != 0 || len(v.Snapshots) != 0 || v.State != wire.StateRunning {
			t.Errorf("%+v, %+v", at(n, id), v)
		}
	})
	t.Run("a restore that failed leaves the recorded configuration", func(t *testing.T) {
		n, id := made(t, false)
		take(n, id, "a", false, "")
		n.want(n.ask("update", id, wire.UpdateData{CPUs: new(3)}, time.Minute), "")
		n.h.Inject(fake.Fault{Method: "Adjust", When: fake.Before, Err: hypervisor.ErrInvalid})
		n.want(n.ask("restore_snapshot", id, wire.SnapshotNameData{Name: "a"}, time.Minute), problem.EffectFailed)
		if spec, _ := n.h.Spec(id); spec.CPUs != 3 || n.vm(id).CPUs != 3 {
			t.Errorf("%+v", spec)
		}
	})
	t.Run("with memory bring the guest back, and what it can have of the configuration", func(t *testing.T) {
		n, id := made(t, true)
		take(n, id, "a", true, "")
		n.want(n.ask("stop", id, wire.StopData{Force: true}, time.Minute), "")
		n.want(n.ask("update", id, wire.UpdateData{CPUs: new(3), Machine: new("pc")}, time.Minute), "")
		n.want(n.ask("restore_snapshot", id, wire.SnapshotNameData{Name: "a"}, time.Minute), "")
		v := n.vm(id)
		live, _ := n.h.Live(id)
		next, _ := n.h.Spec(id)
		if v.State != wire.StateRunning || v.CPUs != 3 || v.Machine == "pc" || string(v.Pending["machine"]) != `"pc"` || live.CPUs != 3 || live.Machine == "pc" || next.Machine != "pc" {
			t.Errorf("%+v\nlive %+v\nnext %+v", v, live, next)
		}
	})
	t.Run("of somebody else keep their name", func(t *testing.T) {
		n, id := made(t, false)
		d := n.h.Driver()
		defer d.Close()
		if err := d.Snapshot(t.Context(), id, hypervisor.Snapshot{Name: "theirs"}); err != nil {
			t.Fatal(err)
		}
		take(n, id, "theirs", false, problem.NameTaken)
	})
	t.Run("are not in disks that are kept", func(t *testing.T) {
		n, id := made(t, false)
		take(n, id, "a", false, "")
		take(n, id, "b", false, "")
		n.want(n.ask("delete", id, wire.DeleteData{KeepDisks: true}, time.Minute), "")
		if e := n.h.Effects(id); e.SnapshotDeleted != 2 {
			t.Errorf("%+v", e)
		}
	})
	t.Run("need a hypervisor", func(t *testing.T) {
		n, id := made(t, false)
		n.h.SetAvailable(false)
		take(n, id, "a", false, problem.HypervisorUnavailable)
	})
}
