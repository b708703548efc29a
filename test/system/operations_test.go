package system_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// TestOperations asks for operations while they run and afterwards, and for the log across a kill.
func TestOperations(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	deaf := i.Must("POST", "/api/vms", small("deaf", map[string]any{"start": true})) // no guest: nobody hears the power button
	i.Run(t, "a guest that ignores the shutdown goes on running", func(t *testing.T) {
		op := i.Operation("POST", "/api/vms/deaf/shutdown", map[string]any{"timeout_s": 1})
		if op.State != operation.StateFailed || op.Error == nil || op.Error.Code != problem.DeadlineExceeded {
			t.Errorf("operation: %s %+v", op.State, op.Error)
		}
		if state := virsh(t, i, "domstate", "deaf"); state != "running" {
			t.Errorf("the domain is %s", state)
		}
		var v openapi.VM
		if i.Get("/api/vms/deaf", &v); v.State != vm.StateRunning {
			t.Errorf("shown as %s", v.State)
		}
	})
	i.Run(t, "what is under way is named, and force overtakes it", func(t *testing.T) {
		asked := accepted(i, "POST", "/api/vms/deaf/stop?force=false", map[string]any{"timeout_s": 600})
		for _, path := range []string{"start", "shutdown"} {
			status, p := i.Problem("POST", "/api/vms/deaf/"+path, nil)
			if status != http.StatusConflict || p.Code != problem.InvalidState || p.Operation != asked.String() {
				t.Errorf("%s: %d %+v, want it to name %s", path, status, p, asked)
			}
		}
		if status, p := i.Problem("POST", "/api/operations/"+asked.String()+"/cancel", nil); status != http.StatusConflict {
			t.Errorf("cancel of one step: %d %+v", status, p)
		}
		i.Must("POST", "/api/vms/deaf/stop", nil)
		if state := virsh(t, i, "domstate", "deaf"); state != "shut off" {
			t.Errorf("the domain is %s", state)
		}
		op := operationOf(i, asked.String())
		if op.State != operation.StateFailed || op.Error == nil || op.Error.Code != problem.Superseded {
			t.Errorf("the overtaken operation: %s %+v", op.State, op.Error)
		}
	})
	i.Run(t, "canceled, a create leaves nothing", func(t *testing.T) { cancel(t, i) })
	i.Run(t, "they are listed and filtered", func(t *testing.T) {
		for query, want := range map[string][]string{ // what was refused is an operation that failed
			"?type=vm.create&state=canceled":                 {"vm.create"},
			"?resource=/api/vms/" + deaf.ResourceID.String(): {"vm.stop", "vm.shutdown", "vm.start", "vm.shutdown", "vm.shutdown", "vm.create"},
			"?state=failed&sort=created_at":                  {"vm.shutdown", "vm.shutdown", "vm.start", "vm.shutdown"},
			"?actor=uid:0&state=succeeded&type=vm.delete":    {"vm.delete"},
			"?actor=nobody": nil,
		} {
			var list openapi.OperationList
			i.Get("/api/operations"+query, &list)
			var got []string
			for _, op := range list.Items {
				got = append(got, op.Type)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s: %q, want %q", query, got, want)
			}
		}
	})
	i.Run(t, "the log says what the driver said", func(t *testing.T) {
		op := i.Operation("POST", "/api/vms", small("odd", map[string]any{"cpu_model": "abacus", "start": true}))
		if op.State != operation.StateFailed || op.Error == nil || op.Error.Code != problem.InvalidValue {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
		var log openapi.OperationLog
		i.Get("/api/operations/"+op.ID.String()+"/log", &log)
		last := log.Items[len(log.Items)-1]
		if last.Type != "operation.failed" || !strings.Contains(value(last.Log), "Unknown CPU model abacus") ||
			log.Items[0].Type != "operation.requested" {
			t.Errorf("log ends with %s %q", last.Type, value(last.Log))
		}
	})
	i.Run(t, "the log of events is followed across a kill", func(t *testing.T) { follow(t, i) })
}

// accepted sends a mutation that is not waited for and returns its operation.
func accepted(i *instance.Instance, method, path string, body any) (id operationID) {
	i.T.Helper()
	a := i.Do(method, path, body)
	if _, err := fmt.Sscanf(a.Header.Get("Location"), "/api/operations/%s", &id); err != nil || a.StatusCode != http.StatusAccepted {
		i.T.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.Bytes)
	}
	return id
}

type operationID string

func (id operationID) String() string { return string(id) }

func operationOf(i *instance.Instance, id string) (op operation.View) {
	i.T.Helper()
	i.Get("/api/operations/"+id+"?wait=60", &op)
	return op
}

// cancel takes back a create that has many disks to make.
func cancel(t *testing.T, i *instance.Instance) {
	disks := make([]any, 16)
	for n := range disks {
		disks[n] = map[string]any{"size_gb": 1}
	}
	id := accepted(i, "POST", "/api/vms", small("many", map[string]any{"disks": disks}))
	if a := i.Do("POST", "/api/operations/"+id.String()+"/cancel", nil); a.StatusCode != http.StatusAccepted || a.Header.Get("Location") != "/api/operations/"+id.String() {
		t.Fatalf("cancel: %d %s", a.StatusCode, a.Bytes)
	}
	op := operationOf(i, id.String())
	if op.State != operation.StateCanceled {
		t.Fatalf("operation: %s %+v", op.State, op.Error)
	}
	if status, p := i.Problem("POST", "/api/operations/"+id.String()+"/cancel", nil); status != http.StatusConflict || p.Code != problem.InvalidState {
		t.Errorf("canceled twice: %d %+v", status, p)
	}
	var volumes openapi.VolumeList
	i.Get("/api/storage/pools/local/volumes", &volumes)
	if files := volumeFiles(t, i); len(files) != 0 || len(volumes.Items) != 0 {
		t.Errorf("left behind: files %q, volumes %+v", files, volumes.Items)
	}
	if status, p := i.Problem("GET", "/api/vms/many", nil); status != http.StatusNotFound {
		t.Errorf("the machine: %d %+v", status, p)
	}
	i.Must("POST", "/api/vms", small("many", nil))
	i.Must("DELETE", "/api/vms/many", nil)
}

// follow kills the process in the middle of a start, while the log is followed, and resumes after the last event that
// came. No event is lost or comes twice.
func follow(t *testing.T, i *instance.Instance) {
	var now openapi.OperationList
	i.Get("/api/operations?limit=1", &now)
	before := openStream(t, i, now.Position)
	id := accepted(i, "POST", "/api/vms/deaf/start", nil)
	before.until("operation.requested")
	i.Kill()
	before.end()
	i.Start()

	last := now.Position
	if n := len(before.events); n > 0 {
		last = before.events[n-1].Position.String()
	}
	after := openStream(t, i, last)
	if op := operationOf(i, id.String()); op.State != operation.StateSucceeded {
		t.Fatalf("the start that was cut off: %s %+v", op.State, op.Error)
	}
	after.until("operation.succeeded")
	after.close()
	if state := virsh(t, i, "domstate", "deaf"); state != "running" {
		t.Errorf("the domain is %s", state)
	}

	var whole []string
	for page := now.Position; ; {
		var list openapi.EventList
		i.Get("/api/events?limit=2&after="+page, &list)
		for _, e := range list.Items {
			whole = append(whole, e.Position.String()+" "+e.Type)
		}
		if list.Next == nil {
			break
		}
		page = *list.Next
	}
	var streamed []string
	for _, e := range append(before.events, after.events...) {
		streamed = append(streamed, e.Position.String()+" "+e.Type)
	}
	if len(streamed) > len(whole) || !slices.Equal(streamed, whole[:len(streamed)]) {
		t.Errorf("streamed %q\nof         %q", streamed, whole)
	}
	settled(t, i)
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
