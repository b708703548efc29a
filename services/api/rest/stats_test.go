package rest

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/pkg/usage"
	"horcrux/services/api/telemetry"
)

// told is what nodes tell in a test.
type told struct {
	node, vm  uuid.UUID // that were asked for
	err       error
	unmanaged telemetry.Unmanaged
}

func (o *told) Unmanaged(context.Context) (telemetry.Unmanaged, error) { return o.unmanaged, o.err }

func (o *told) VM(_ context.Context, node, id uuid.UUID) (json.RawMessage, error) {
	o.node, o.vm = node, id
	b, _ := json.Marshal(usage.VM{ID: id, Name: "a", Node: node, State: vm.StateRunning, At: time.Now(), Disks: []usage.Disk{{Name: "vda"}}, NICs: []usage.NIC{{}}})
	return b, o.err
}

func (o *told) VMHistory(_ context.Context, _, id uuid.UUID) (json.RawMessage, error) {
	h := usage.NoHistory(id)
	h.Items = append(h.Items, usage.Sample{At: time.Now()})
	b, _ := json.Marshal(h)
	return b, o.err
}

func (o *told) NodeHistory(_ context.Context, node uuid.UUID) (json.RawMessage, error) {
	b, _ := json.Marshal(usage.NoHistory(node))
	return b, o.err
}

func (o *told) All(context.Context) (usage.All, error) {
	return usage.All{Nodes: []usage.Node{{}}, VMs: []json.RawMessage{}, Missing: []usage.Missing{{Name: "gone"}}}, o.err
}

func TestStats(t *testing.T) {
	o := &told{}
	w := newWorld(t, func(opts *Options) { opts.Usage = o })
	id := w.post("/api/vms?wait=5", `{"name":"a"}`).is(200).operation().ResourceID
	w.caughtUp()
	for _, ref := range []string{"a", id.String()} {
		if v := into[openapi.VMStats](w.get("/api/vms/" + ref + "/stats").is(200)); v.ID != id || o.node != w.service.node || o.vm != id {
			t.Errorf("asked %s for %s, told %+v", o.node, o.vm, v)
		}
	}
	if h := into[openapi.StatsHistory](w.get("/api/vms/a/stats/history").is(200)); h.ID != id || len(h.Items) != 1 {
		t.Errorf("history %+v", h)
	}
	w.get("/api/stats/nodes/here/history").is(200)
	w.get("/api/stats/nodes/elsewhere/history").problem(problem.NotFound)
	if all := into[openapi.Stats](w.get("/api/stats").is(200)); len(all.Missing) != 1 || all.Missing[0].Name != "gone" {
		t.Errorf("all %+v", all)
	}
	for _, path := range []string{"/api/vms/none/stats", "/api/vms/none/stats/history", "/api/vms/" + uuid.NewString() + "/stats"} {
		w.get(path).problem(problem.NotFound)
	}

	o.err = problem.New(problem.NotFound, "the hypervisor knows none")
	if v := into[openapi.VMStats](w.get("/api/vms/a/stats").is(200)); v.ID != id || v.Name != "a" || v.CPU.UsedS != nil || len(v.Disks) != 0 {
		t.Errorf("of a machine that no hypervisor knows: %+v", v)
	}
	if h := into[openapi.StatsHistory](w.get("/api/vms/a/stats/history").is(200)); len(h.Items) != 0 {
		t.Errorf("its history %+v", h)
	}
	o.err = problem.New(problem.HypervisorUnavailable, "node x does not answer")
	w.get("/api/vms/a/stats").problem(problem.HypervisorUnavailable)
	w.get("/api/vms/a/stats/history").problem(problem.HypervisorUnavailable)
}

func TestImport(t *testing.T) {
	found := vm.Unmanaged{ID: uuid.New(), Name: "old", NativeID: "old", Backend: "qemu", State: vm.StateRunning}
	o := &told{unmanaged: telemetry.Unmanaged{Items: []vm.Unmanaged{found}, Missing: []usage.Missing{}}}
	w := newWorld(t, func(opts *Options) { opts.Usage = o })
	o.unmanaged.Items[0].Node = w.service.node
	if all := into[openapi.UnmanagedVMs](w.get("/api/vms/unmanaged").is(200)); len(all.Items) != 1 || all.Items[0].Name != "old" {
		t.Errorf("unmanaged are %+v", all)
	}
	if op := w.post("/api/vms/import?wait=5", `{"native_id":"old"}`).is(200).operation(); op.ResourceID != found.ID || op.Type != "vm.import" {
		t.Errorf("imported by %+v", op)
	}
	w.post("/api/vms/import", `{"native_id":"nobody"}`).problem(problem.InvalidValue)
	w.post("/api/vms/import", `{"native_id":"old","backend":"incus"}`).problem(problem.FeatureNotBuilt)
	o.unmanaged.Missing = []usage.Missing{{Name: "silent"}}
	w.post("/api/vms/import", `{"native_id":"nobody"}`).problem(problem.HypervisorUnavailable)
}
