package system_test

import (
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// TestBehindOurBack changes domains with virsh. What we see is recorded with its cause, and what is not ours is left
// alone.
func TestBehindOurBack(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	i.Must("POST", "/api/vms", small("t1", map[string]any{"start": true}))
	for _, c := range []struct {
		verb  string
		state vm.State
		event string
	}{
		{"destroy", vm.StateStopped, "vm.stopped"},
		{"start", vm.StateRunning, "vm.started"},
		{"suspend", vm.StatePaused, "vm.paused"},
		{"resume", vm.StateRunning, "vm.resumed"},
	} {
		i.Run(t, "virsh "+c.verb, func(t *testing.T) {
			virsh(t, i, c.verb, "t1")
			becomes(t, i, "t1", c.state)
			var h openapi.History
			i.Get("/api/vms/t1/history", &h)
			last := h.Items[len(h.Items)-1]
			if last.Type != c.event || last.Operation != nil || last.Actor != "service:compute" || last.Reason == nil || *last.Reason == "" {
				t.Errorf("told as %+v", last)
			}
		})
	}
	i.Run(t, "a foreign domain keeps its name and is left alone", func(t *testing.T) {
		const foreign = `<domain type='qemu'><name>foreign</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os></domain>`
		file := filepath.Join(t.TempDir(), "foreign.xml")
		if err := os.WriteFile(file, []byte(foreign), 0o644); err != nil {
			t.Fatal(err)
		}
		virsh(t, i, "define", file)
		op := i.Operation("POST", "/api/vms", small("foreign", map[string]any{"disks": []any{map[string]any{"size_gb": 1}}}))
		if op.Error == nil || op.Error.Code != problem.NameTaken || !slices.ContainsFunc(op.Error.Fields, func(f problem.Field) bool { return f.Field == "name" }) {
			t.Errorf("operation: %s %+v", op.State, op.Error)
		}
		if a := i.Do("GET", "/api/vms/foreign", nil); a.StatusCode != http.StatusNotFound || len(volumeFiles(t, i)) != 0 {
			t.Errorf("%d %s, files %q", a.StatusCode, a.Bytes, volumeFiles(t, i))
		}
		if state := virsh(t, i, "domstate", "foreign"); state != "shut off" {
			t.Errorf("the foreign domain is %s", state)
		}
		virsh(t, i, "undefine", "foreign")
	})
	i.Run(t, "undefined while nobody looked, it is lost and can be deleted", func(t *testing.T) {
		i.Kill()
		virsh(t, i, "destroy", "t1")
		virsh(t, i, "undefine", "t1")
		i.Start()
		becomes(t, i, "t1", vm.StateError)
		if status, p := i.Problem("POST", "/api/vms/t1/start", nil); status != http.StatusConflict || p.Code != problem.InvalidState {
			t.Errorf("start: %d %+v", status, p)
		}
		i.Must("DELETE", "/api/vms/t1", nil)
	})
}

func becomes(t *testing.T, i *instance.Instance, name string, want vm.State) {
	t.Helper()
	var v openapi.VM
	instance.Eventually(t, heal, "it is seen to be "+string(want), func() bool {
		i.Get("/api/vms/"+name, &v)
		return v.State == want
	})
}
