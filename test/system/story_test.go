package system_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/accel/initrd"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/test/instance"
)

// TestStory is the life of one virtual machine as the README tells it, each part building on those before.
func TestStory(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	s := &story{Instance: i, domains: watchDomains(t, i)}
	for _, part := range []struct {
		name string
		tell func(*story, *testing.T)
	}{
		{"created and started, it runs up to user space", (*story).create},
		{"its history tells how", (*story).tellHistory},
		{"it is shown as it was before it ran", (*story).travel},
		{"a change reaches the domain, and If-Match keeps out a late one", (*story).change},
		{"a revert brings domain and configuration back", (*story).revert},
		{"a key makes a request once", (*story).repeat},
		{"min_position reads one's own writes", (*story).readOwn},
		{"it is paused, goes on, and is reset", (*story).power},
		{"the guest shuts down when it is asked", (*story).shutdown},
		{"it starts with its node", (*story).autostart},
		{"deleted, its disk is kept and can be deleted too", (*story).delete},
		{"its name is free, its past is not lost", (*story).past},
	} {
		i.Run(t, part.name, func(t *testing.T) { part.tell(s, t) })
		if t.Failed() {
			return
		}
	}
}

type story struct {
	*instance.Instance
	domains *domains
	created operation.View
	said    *transcript            // by the guest, from its start
	history []openapi.HistoryEntry // of the create and the start
}

func (s *story) vm() openapi.VM {
	var v openapi.VM
	s.Get("/api/vms/t1", &v)
	return v
}

// events is the history of t1 from a place on.
func (s *story) events(after int) []openapi.HistoryEntry {
	var h openapi.History
	s.Get("/api/vms/"+s.created.ResourceID.String()+"/history", &h)
	return h.Items[after:]
}

func types(h []openapi.HistoryEntry) (names []string) {
	for _, e := range h {
		names = append(names, e.Type)
	}
	return names
}

func (s *story) create(t *testing.T) {
	kernel, image := guestFiles(t, s.Instance, initrd.Obey)
	s.created = s.Must("POST", "/api/vms", map[string]any{
		"name": "t1", "cpus": 1, "memory_mb": 128, "start": true,
		"boot":  map[string]any{"kernel": kernel, "initrd": image, "cmdline": "console=ttyS0"},
		"disks": []any{map[string]any{"pool": "local", "size_gb": 1}},
	})
	s.said = s.domains.console(t, "t1")
	if list := virsh(t, s.Instance, "list", "--name"); list != "t1" {
		t.Errorf("virsh lists %q as running", list)
	}
	var steps []string
	for _, step := range s.created.Steps {
		steps = append(steps, step.Name+" "+step.State)
	}
	if want := []string{"disk 0 succeeded", "define succeeded", "start succeeded"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	if v := s.vm(); v.State != vm.StateRunning || v.ID != s.created.ResourceID || v.Accelerator == nil || *v.Accelerator != "tcg" ||
		v.Networks[0].Network != "default" || v.Disks[0].Format != "qcow2" {
		t.Errorf("shown as %+v", v)
	}
	files := volumeFiles(t, s.Instance)
	if disks := virsh(t, s.Instance, "domblklist", "t1"); len(files) != 1 || !strings.Contains(disks, files[0]) {
		t.Errorf("volumes %q, the domain has\n%s", files, disks)
	}
	instance.Eventually(t, 3*time.Minute, "the guest says that it has come to user space", func() bool {
		return strings.Contains(s.said.String(), guest.Line)
	})
}

func (s *story) tellHistory(t *testing.T) {
	s.history = s.events(0)
	want := []string{"vm.create_requested", "vm.define_requested", "vm.created", "vm.start_requested", "vm.started"}
	if got := types(s.history); !slices.Equal(got, want) {
		t.Fatalf("history %q, want %q", got, want)
	}
	for n, e := range s.history {
		if e.Operation == nil || *e.Operation != s.created.ID || e.Version != int64(n+1) {
			t.Errorf("%s is version %d by operation %v, want %d by %s", e.Type, e.Version, e.Operation, n+1, s.created.ID)
		}
	}
	if first := s.history[0]; first.Actor != "uid:0" || len(first.Before) != 0 || first.After["name"] != "t1" {
		t.Errorf("it began with %+v", first)
	}
	if last := s.history[4]; last.Before["state"] != "starting" || last.After["state"] != "running" || last.After["name"] != nil {
		t.Errorf("it was started with %v → %v", last.Before, last.After)
	}
}

func (s *story) travel(t *testing.T) {
	at := func(when string) (v openapi.VM) {
		s.Get("/api/vms/t1?at="+when, &v)
		return v
	}
	created := s.history[2]
	for when, want := range map[string]vm.State{
		s.history[0].Position: vm.StateCreating, created.Position: vm.StateStopped, s.history[3].Position: vm.StateStarting,
		s.history[4].Position: vm.StateRunning, s.history[4].Time.Add(-time.Microsecond).Format(time.RFC3339Nano): vm.StateStarting,
	} {
		if v := at(when); v.State != want || v.Name != "t1" {
			t.Errorf("at %s it was %s, want %s", when, v.State, want)
		}
	}
	if v := at(created.Position); v.Version != created.Version {
		t.Errorf("version %d at its version %d", v.Version, created.Version)
	}
	before := s.history[0].Time.Add(-time.Second).Format(time.RFC3339Nano)
	if status, p := s.Problem("GET", "/api/vms/t1?at="+before, nil); status != http.StatusNotFound {
		t.Errorf("before it was: %d %+v", status, p)
	}
}

func (s *story) change(t *testing.T) {
	tag := s.Do("GET", "/api/vms/t1", nil).Header.Get("ETag")
	change := map[string]any{"description": "for <tests> & more", "tags": []string{"web"}, "autostart": true}
	s.Must("PATCH", "/api/vms/t1?reason=because", change, "If-Match", tag)
	if got := virsh(t, s.Instance, "desc", "t1"); got != "for <tests> & more" {
		t.Errorf("the domain is described as %q", got)
	}
	if info := virsh(t, s.Instance, "dominfo", "t1"); !strings.Contains(info, "Autostart:      enable") {
		t.Errorf("the domain does not start by itself:\n%s", info)
	}
	if v := s.vm(); v.Description != "for <tests> & more" || !slices.Equal(v.Tags, []string{"web"}) || !v.Autostart {
		t.Errorf("shown as %+v", v)
	}
	changes := s.events(5)
	last := changes[len(changes)-1]
	if last.Type != "vm.updated" || last.Reason == nil || *last.Reason != "because" ||
		last.Before["description"] != "" || last.After["description"] != "for <tests> & more" || last.After["state"] != nil {
		t.Errorf("told as %+v", last)
	}

	status, p := s.Problem("PATCH", "/api/vms/t1", map[string]any{"description": "late"}, "If-Match", tag)
	if status != http.StatusPreconditionFailed || p.Code != problem.VersionConflict {
		t.Errorf("a late change: %d %+v", status, p)
	}
	if got := virsh(t, s.Instance, "desc", "t1"); got != "for <tests> & more" {
		t.Errorf("a late change made it %q", got)
	}
}

func (s *story) power(t *testing.T) {
	for _, c := range []struct {
		verb, domain string
		state        vm.State
	}{{"pause", "paused", vm.StatePaused}, {"resume", "running", vm.StateRunning}} {
		s.Must("POST", "/api/vms/t1/"+c.verb, nil)
		if state := virsh(t, s.Instance, "domstate", "t1"); state != c.domain || s.vm().State != c.state {
			t.Errorf("after %s the domain is %s, shown as %s", c.verb, state, s.vm().State)
		}
		if status, p := s.Problem("POST", "/api/vms/t1/"+c.verb, nil); status != http.StatusConflict || p.Code != problem.InvalidState {
			t.Errorf("%s again: %d %+v", c.verb, status, p)
		}
	}
	s.Must("POST", "/api/vms/t1/reset", nil)
	instance.Eventually(t, 3*time.Minute, "the guest has come to user space again", func() bool {
		return strings.Count(s.said.String(), guest.Line) == 2
	})
	if last := s.events(0); last[len(last)-1].Type != "vm.reset" || s.vm().State != vm.StateRunning {
		t.Errorf("told as %+v, shown as %s", last[len(last)-1], s.vm().State)
	}
}

func (s *story) revert(t *testing.T) {
	s.Must("POST", "/api/vms/t1/revert", map[string]any{"to": s.history[4].Position})
	if got := virsh(t, s.Instance, "desc", "t1"); got != "No description for domain: t1" {
		t.Errorf("the domain is described as %q", got)
	}
	if info := virsh(t, s.Instance, "dominfo", "t1"); !strings.Contains(info, "Autostart:      disable") {
		t.Errorf("the domain starts by itself:\n%s", info)
	}
	if v := s.vm(); v.Description != "" || len(v.Tags) != 0 || v.Autostart || v.State != vm.StateRunning {
		t.Errorf("shown as %+v", v)
	}
	if status, p := s.Problem("POST", "/api/vms/t1/revert", map[string]any{"to": "nowhere"}); status != http.StatusUnprocessableEntity ||
		len(p.Fields) != 1 || p.Fields[0].Field != "to" {
		t.Errorf("a revert to nowhere: %d %+v", status, p)
	}
}

func (s *story) repeat(t *testing.T) {
	send := func(text string, query ...string) instance.Answer {
		return s.Do("PATCH", "/api/vms/t1"+strings.Join(query, ""), map[string]any{"description": text}, "Idempotency-Key", "once")
	}
	id := func(a instance.Answer) string {
		var op operation.View
		if err := json.Unmarshal(a.Bytes, &op); err != nil || op.State != operation.StateSucceeded {
			t.Fatalf("%v: %d %s", err, a.StatusCode, a.Bytes)
		}
		return op.ID.String()
	}
	first := id(send("first", "?wait=60"))
	s.Must("PATCH", "/api/vms/t1", map[string]any{"description": "second"})
	if again := id(send("first")); again != first {
		t.Errorf("repeated, operation %s became %s", first, again)
	}
	s.Kill()
	s.Start()
	if again := id(send("first", "?wait=5")); again != first {
		t.Errorf("repeated after a restart, operation %s became %s", first, again)
	}
	for name, a := range map[string]instance.Answer{
		"body":  send("other"),
		"query": send("first", "?reason=why"),
		"path":  s.Do("POST", "/api/vms/t1/start", nil, "Idempotency-Key", "once"),
	} {
		if a.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(string(a.Bytes), string(problem.IdempotencyKeyReused)) {
			t.Errorf("another %s under the key: %d %s", name, a.StatusCode, a.Bytes)
		}
	}
	if got := virsh(t, s.Instance, "desc", "t1"); got != "second" {
		t.Errorf("the domain is described as %q", got)
	}
}

func (s *story) readOwn(t *testing.T) {
	for _, text := range []string{"a", "b", "c"} {
		a := s.Do("PATCH", "/api/vms/t1?wait=60", map[string]any{"description": text})
		var v openapi.VM
		s.Get("/api/vms/t1?min_position="+a.Header.Get("Horcrux-Position"), &v)
		if v.Description != text {
			t.Errorf("read %q after writing %q", v.Description, text)
		}
	}
	a := s.Do("PATCH", "/api/vms/t1", map[string]any{"description": "d"})
	var ops openapi.OperationList
	s.Get("/api/operations?limit=1&min_position="+a.Header.Get("Horcrux-Position"), &ops)
	if a.Header.Get("Location") != "/api/operations/"+ops.Items[0].ID.String() {
		t.Errorf("accepted %s, the last that is listed is %s", a.Header.Get("Location"), ops.Items[0].ID)
	}
	var op operation.View
	if s.Get(a.Header.Get("Location")+"?wait=60", &op); op.State != operation.StateSucceeded {
		t.Errorf("operation: %s %+v", op.State, op.Error)
	}
}

func (s *story) shutdown(t *testing.T) {
	s.Must("POST", "/api/vms/t1/shutdown", map[string]any{"timeout_s": 30})
	if state := virsh(t, s.Instance, "domstate", "t1"); state != "shut off" {
		t.Errorf("the domain is %s", state)
	}
	for _, path := range []string{"stop", "shutdown"} {
		if status, p := s.Problem("POST", "/api/vms/t1/"+path, nil); status != http.StatusConflict || p.Code != problem.InvalidState {
			t.Errorf("%s of a stopped machine: %d %+v", path, status, p)
		}
	}
}

func (s *story) delete(t *testing.T) {
	if status, p := s.Problem("DELETE", "/api/vms/t1", nil); status != http.StatusConflict || p.Code != problem.InvalidState {
		t.Errorf("deleting it while it runs: %d %+v", status, p)
	}
	s.Must("DELETE", "/api/vms/t1?force=true&keep_disks=true", nil)
	if list := virsh(t, s.Instance, "list", "--all", "--name"); list != "" {
		t.Errorf("virsh lists %q", list)
	}
	var volumes openapi.VolumeList
	s.Get("/api/storage/pools/local/volumes", &volumes)
	if files := volumeFiles(t, s.Instance); len(files) != 1 || len(volumes.Items) != 1 || volumes.Items[0].Owner != "" {
		t.Fatalf("files %q, volumes %+v", files, volumes.Items)
	}
	s.Must("DELETE", "/api/storage/pools/local/volumes/"+volumes.Items[0].Name, nil)
	if files := volumeFiles(t, s.Instance); len(files) != 0 {
		t.Errorf("left behind: %q", files)
	}
}

func (s *story) past(t *testing.T) {
	id := s.created.ResourceID.String()
	if status, p := s.Problem("GET", "/api/vms/t1", nil); status != http.StatusNotFound || p.Code != problem.NotFound {
		t.Errorf("by name it is %d %+v", status, p)
	}
	var then openapi.VM
	if s.Get("/api/vms/"+id+"?at="+s.history[4].Position, &then); then.Name != "t1" || then.State != vm.StateRunning {
		t.Errorf("it was %+v", then)
	}
	told := types(s.events(0))
	if last := told[len(told)-1]; last != "vm.deleted" || !slices.Equal(told[:5], types(s.history)) {
		t.Errorf("its history is %q", told)
	}
	again := s.Must("POST", "/api/vms", small("t1", nil))
	if again.ResourceID == s.created.ResourceID {
		t.Error("the id is used again")
	}
	if disks := s.vm().Disks; disks == nil || len(disks) != 0 {
		t.Errorf("it has the disks %#v", disks)
	}
}

// autostart makes libvirtd believe that the host was booted: what it keeps in /run is gone.
func (s *story) autostart(t *testing.T) {
	s.Must("PATCH", "/api/vms/t1", map[string]any{"autostart": true})
	s.Reboot()
	instance.Eventually(t, 20*time.Second, "it is seen to run", func() bool { return s.vm().State == vm.StateRunning })
	if state := virsh(t, s.Instance, "domstate", "t1"); state != "running" {
		t.Errorf("the domain is %s", state)
	}
	told := s.events(0)
	if last := told[len(told)-1]; last.Type != "vm.started" || last.Operation != nil || last.Actor != "service:compute" {
		t.Errorf("told as %+v", last)
	}
}
