package system_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/test/instance"
)

// TestCrash kills the process with SIGKILL at every point that a command passes, for each verb whose effect is on the
// hypervisor or on the disk. After the restart the operation ends, the effect has happened exactly once, as libvirt
// and the file system tell, and nothing is stuck.
func TestCrash(t *testing.T) {
	t.Parallel()
	all := func(subject string, points ...string) (out []string) {
		for _, p := range points {
			out = append(out, p+":"+subject)
		}
		return out
	}
	join := func(lists ...[]string) (out []string) {
		for _, l := range lists {
			out = append(out, l...)
		}
		return out
	}
	intake := []string{"recorded", "published", "decided"}
	effect := []string{"before-effect", "after-effect", "fact-recorded"}

	i := qemuInstance(t)
	i.Start()
	w := watchDomains(t, i)
	for _, c := range []struct {
		verb   string
		points []string
	}{
		{"create", join(all("vm.create", intake...), all("volume.create", append(effect, "decided")...),
			all("operation.step_ended", "decided"), all("vm.define", effect...))},
		{"start", join(all("vm.start", intake...), all("vm.start", effect...))},
		{"stop", join(all("vm.stop", intake...), all("vm.stop", effect...))},
		{"pause", join(all("vm.pause", "decided"), all("vm.pause", effect...))},
		{"resume", join(all("vm.resume", "decided"), all("vm.resume", effect...))},
		{"snapshot", join(all("vm.snapshot", "decided"), all("vm.snapshot", effect...))},
		{"restore", join(all("vm.restore_snapshot", "decided"), all("vm.restore_snapshot", effect...))},
		{"unsnapshot", join(all("vm.delete_snapshot", "decided"), all("vm.delete_snapshot", effect...))},
		{"delete", join(all("vm.delete", intake...), all("vm.remove", effect...), all("volume.delete", append(effect, "decided")...))},
	} {
		for n, point := range c.points {
			i.Run(t, c.verb+"/"+point, func(t *testing.T) {
				crash(t, i, w, c.verb, point, fmt.Sprintf("%s-%d", c.verb, n))
			})
		}
	}
}

func crash(t *testing.T, i *instance.Instance, w *domains, verb, point, name string) {
	t.Cleanup(func() {
		i.DeleteVMs()
		if files := volumeFiles(t, i); len(files) != 0 {
			t.Errorf("left behind: %v", files)
		}
	})
	i.Kill() // and not Stop, which would end the libvirtd that is watched
	i.Start("HORCRUX_CRASHPOINT="+point, "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
	spec := map[string]any{
		"name": name, "memory_mb": 32, "networks": []any{}, "disks": []any{map[string]any{"pool": "local", "size_gb": 1}},
	}
	method, path, body := "POST", "/api/vms", any(spec)
	if verb != "create" {
		i.Must("POST", "/api/vms", spec)
	}
	switch verb {
	case "start":
		path, body = "/api/vms/"+name+"/start", nil
	case "stop":
		i.Must("POST", "/api/vms/"+name+"/start", nil)
		path, body = "/api/vms/"+name+"/stop", nil
	case "pause", "resume":
		i.Must("POST", "/api/vms/"+name+"/start", nil)
		if verb == "resume" {
			i.Must("POST", "/api/vms/"+name+"/pause", nil)
		}
		path, body = "/api/vms/"+name+"/"+verb, nil
	case "snapshot", "restore", "unsnapshot":
		method, path, body = keep(t, i, verb, name)
	case "delete":
		method, path, body = "DELETE", "/api/vms/"+name, nil
	}
	var vm struct{ ID string }
	if verb != "create" {
		i.Get("/api/vms/"+name, &vm)
	}

	key := "crash-" + name
	_, err := i.Try(method, path+"?wait=30", body, "Idempotency-Key", key)
	if err == nil && !strings.HasPrefix(point, "fact-recorded:") { // once the last fact is recorded the answer may be first
		t.Fatalf("the process did not reach %s", point)
	}
	i.Died()
	i.Start()

	// The same request is the same operation, whatever became of the first answer; until it is decided it is 409.
	instance.Eventually(t, 10*time.Second, "the operation is decided", func() bool {
		return i.Do(method, path, body, "Idempotency-Key", key).StatusCode == http.StatusAccepted
	})
	op := i.Operation(method, path, body, "Idempotency-Key", key)
	if op.State != operation.StateSucceeded {
		t.Fatalf("operation: %s %+v %+v", op.State, op.Error, op.Steps)
	}
	if n := map[bool]int{true: 0, false: 1}[verb == "delete"]; len(volumeFiles(t, i)) != n {
		t.Fatalf("%d files in the pool, want %d: %v", len(volumeFiles(t, i)), n, volumeFiles(t, i))
	}
	settled(t, i)
	if slices.Contains([]string{"snapshot", "restore", "unsnapshot"}, verb) {
		kept(t, i, verb, name)
		return
	}
	id := op.ResourceID.String()
	want := map[string]effects{
		"create": {defined: 1}, "start": {defined: 1, started: 1},
		"stop":  {defined: 1, started: 1, stopped: 1},
		"pause": {defined: 1, started: 1, paused: 1}, "resume": {defined: 1, started: 1, paused: 1, resumed: 1}, "delete": {defined: 1, undefined: 1},
	}[verb]
	instance.Eventually(t, 5*time.Second, fmt.Sprintf("effects are %+v, want %+v", w.of(id), want), func() bool { return w.of(id) == want })
}

// keep makes ready for a verb of snapshots, and says how it is asked for.
func keep(t *testing.T, i *instance.Instance, verb, name string) (method, path string, body any) {
	t.Helper()
	file := volumeFiles(t, i)[0]
	writeDisk(t, file, 'a')
	all, one := "/api/vms/"+name+"/snapshots", map[string]any{"snapshot_name": "s"}
	if verb == "snapshot" {
		return "POST", all, one
	}
	i.Must("POST", all, one)
	writeDisk(t, file, 'b')
	if verb == "restore" {
		return "POST", all + "/s/restore", nil
	}
	return "DELETE", all + "/s", nil
}

// kept asks libvirt and the disk what came of a verb of snapshots: each knows of one, or of none.
func kept(t *testing.T, i *instance.Instance, verb, name string) {
	t.Helper()
	file := volumeFiles(t, i)[0]
	n, on := 1, byte('a')
	if verb == "unsnapshot" {
		n, on = 0, 'b'
	}
	if got := strings.Fields(virsh(t, i, "snapshot-list", name, "--name")); len(got) != n {
		t.Errorf("libvirt has snapshots %q", got)
	}
	if got := diskSnapshots(t, file); len(got) != n {
		t.Errorf("the disk has snapshots %q", got)
	}
	if got := readDisk(t, file); got != on {
		t.Errorf("the disk has %q, want %q", got, on)
	}
}
