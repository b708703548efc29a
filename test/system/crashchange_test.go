package system_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/test/instance"
)

// TestCrashOfChanges is TestCrash for what changes a machine, whose effects are not counted but looked at: they hold, once.
func TestCrashOfChanges(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	effect := []string{"before-effect", "after-effect", "fact-recorded"}
	for _, c := range []struct {
		name    string
		running bool
		points  []string // of the command that the subject names
		subject string
		method  string
		path    string
		body    map[string]any
		holds   func(t *testing.T, i *instance.Instance, v openapi.VM)
	}{
		{
			"update", true, append(effect, "decided"), "vm.update", "PATCH", "",
			map[string]any{"cpus": 2, "machine": "pc"},
			func(t *testing.T, i *instance.Instance, v openapi.VM) {
				if n := virsh(t, i, "vcpucount", v.Name, "--live", "--current"); n != "2" || v.CPUs != 2 || len(v.Pending) != 1 {
					t.Errorf("%s CPUs, shown as %d, pending %v", n, v.CPUs, v.Pending)
				}
			},
		},
		{
			"attach", true, effect, "vm.change_disk", "POST", "/disks", map[string]any{"size_gb": 1}, twoDisks,
		},
		{
			"attach-volume", false, effect, "volume.create", "POST", "/disks", map[string]any{"size_gb": 1}, twoDisks,
		},
		{
			"detach", false, effect, "vm.change_disk", "DELETE", "/disks/disk0", nil,
			func(t *testing.T, i *instance.Instance, v openapi.VM) {
				if out := virsh(t, i, "domblklist", v.Name); strings.Contains(out, "vda") || len(v.Disks) != 0 || len(volumeFiles(t, i)) != 0 {
					t.Errorf("%d disks, %d files, libvirt has\n%s", len(v.Disks), len(volumeFiles(t, i)), out)
				}
			},
		},
		{
			"resize", false, effect, "volume.resize", "POST", "/disks/disk0/resize",
			map[string]any{"size_gb": 2},
			func(t *testing.T, i *instance.Instance, v openapi.VM) {
				if out := virsh(t, i, "domblkinfo", v.Name, "vda"); !strings.Contains(out, fmt.Sprint(2<<30)) || v.Disks[0].SizeGB != 2 {
					t.Errorf("shown as %d GiB, libvirt has\n%s", v.Disks[0].SizeGB, out)
				}
			},
		},
	} {
		for n, point := range c.points {
			i.Run(t, c.name+"/"+point, func(t *testing.T) {
				name := fmt.Sprintf("%s-%d", c.name, n)
				t.Cleanup(func() {
					i.DeleteVMs()
					if files := volumeFiles(t, i); len(files) != 0 {
						t.Errorf("left behind: %v", files)
					}
				})
				i.Kill()
				i.Start()
				i.Must("POST", "/api/vms", map[string]any{
					"name": name, "memory_mb": 32, "max_cpus": 2, "networks": []any{}, "disks": []any{map[string]any{"size_gb": 1}}, "start": c.running,
				})
				i.Kill()
				i.Start("HORCRUX_CRASHPOINT="+point+":"+c.subject, "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
				path, key := "/api/vms/"+name+c.path, "crash-"+name
				var body any
				if c.body != nil {
					body = c.body
				}
				if _, err := i.Try(c.method, path+"?wait=60", body, "Idempotency-Key", key); err == nil && point != "fact-recorded" {
					t.Fatalf("the process did not reach %s", point)
				}
				i.Died()
				i.Start()
				instance.Eventually(t, heal, "the operation is decided", func() bool {
					return i.Do(c.method, path, body, "Idempotency-Key", key).StatusCode == http.StatusAccepted
				})
				op := i.Operation(c.method, path, body, "Idempotency-Key", key)
				if op.State != operation.StateSucceeded {
					t.Fatalf("operation: %s %+v %+v", op.State, op.Error, op.Steps)
				}
				settled(t, i)
				var v openapi.VM
				instance.Eventually(t, 10*time.Second, "it is shown", func() bool {
					v = openapi.VM{}
					i.Get("/api/vms/"+name, &v)
					return v.Version > 0
				})
				c.holds(t, i, v)
			})
		}
	}
}

func twoDisks(t *testing.T, i *instance.Instance, v openapi.VM) {
	t.Helper()
	if out := virsh(t, i, "domblklist", v.Name); strings.Count(out, ".qcow2") != 2 || len(v.Disks) != 2 || len(volumeFiles(t, i)) != 2 {
		t.Errorf("%d disks, %d files, libvirt has\n%s", len(v.Disks), len(volumeFiles(t, i)), out)
	}
}
