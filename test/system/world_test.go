package system_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/test/instance"
)

// TestWorldChanges changes domains with virsh and kill. What happened is shown with its cause, and brought back where the
// policy of the machine says so.
func TestWorldChanges(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	spec := map[string]any{"start": true, "cpus": 1, "max_cpus": 2, "memory_mb": 64}
	i.Must("POST", "/api/vms", small("record", spec))
	spec["on_drift"], spec["disks"] = "repair", []any{map[string]any{"size_gb": 1}}
	i.Must("POST", "/api/vms", small("repair", spec))

	i.Run(t, "recorded", func(t *testing.T) {
		virsh(t, i, "setvcpus", "record", "2", "--live")
		shows(t, i, "record", func(v openapi.VM) bool { return v.CPUs == 2 && string(v.Pending["cpus"]) == "1" })
		tells(t, i, "record", "vm.drifted", "reconfigured")
		virsh(t, i, "setvcpus", "record", "2", "--config")
		shows(t, i, "record", func(v openapi.VM) bool { return v.CPUs == 2 && len(v.Pending) == 0 })
		virsh(t, i, "desc", "record", "by hand", "--config")
		shows(t, i, "record", func(v openapi.VM) bool { return v.Description == "by hand" })
		unmark(t, i, "record", "by hand", "from a file")
		shows(t, i, "record", func(v openapi.VM) bool { return v.Description == "from a file" })
		kill(t, i, "record")
		shows(t, i, "record", func(v openapi.VM) bool { return v.State == vm.StateStopped })
		instance.Eventually(t, soon, "it bears our mark again", func() bool {
			return strings.Contains(virsh(t, i, "dumpxml", "record", "--inactive"), "horcrux:domain")
		})
		tells(t, i, "record", "vm.stopped", "crashed")
		i.Must("POST", "/api/vms/record/start", nil)
		virsh(t, i, "undefine", "record")
		tells(t, i, "record", "vm.drifted", "undefined")
		virsh(t, i, "destroy", "record")
		shows(t, i, "record", func(v openapi.VM) bool { return v.State == vm.StateError })
	})
	i.Run(t, "repaired", func(t *testing.T) {
		repairs := 0
		brought := func(what string, holds func() bool) {
			t.Helper()
			repairs++
			instance.Eventually(t, time.Minute, what+" is told to be brought back", func() bool {
				var h openapi.History
				i.Get("/api/vms/repair/history?limit=1000", &h)
				n := 0
				for _, e := range h.Items {
					if e.Type == "vm.repaired" {
						n++
					}
				}
				return n == repairs
			})
			instance.Eventually(t, time.Minute, what+" is brought back", holds)
			i.Must("POST", "/api/vms/repair/pause", nil) // a command: repairs are counted anew
			i.Must("POST", "/api/vms/repair/resume", nil)
		}
		running := func() bool { s, _ := tryVirsh(i, "domstate", "repair"); return s == "running" }
		virsh(t, i, "destroy", "repair")
		brought("one that was destroyed", running)
		tells(t, i, "repair", "vm.repair_requested", "destroyed")
		kill(t, i, "repair")
		brought("one whose emulator was killed", running)
		virsh(t, i, "suspend", "repair")
		brought("one that was suspended", running)
		virsh(t, i, "undefine", "repair")
		brought("one that was undefined", func() bool {
			out, _ := tryVirsh(i, "dominfo", "repair")
			return strings.Contains(out, "Persistent:     yes")
		})
		virsh(t, i, "setvcpus", "repair", "2", "--config")
		brought("a configuration", func() bool {
			out, _ := tryVirsh(i, "vcpucount", "repair", "--config", "--current")
			return out == "1"
		})
		for _, which := range [][]string{{"domblklist", "repair"}, {"domblklist", "repair", "--inactive"}} {
			if out := virsh(t, i, which...); strings.Count(out, ".qcow2") != 1 {
				t.Errorf("%s: its disks are\n%s", which, out)
			}
		}
	})
}

// soon is how long a change made by others may take to be told: much less than the time between two looks at everything.
const soon = 10 * time.Second

// unmark defines a guest anew from its document without our mark and with another description, as whoever keeps such
// documents in files does.
func unmark(t *testing.T, i *instance.Instance, name, description, other string) {
	t.Helper()
	xml := virsh(t, i, "dumpxml", name, "--inactive")
	head, rest, found := strings.Cut(xml, "<metadata>")
	_, tail, _ := strings.Cut(rest, "</metadata>")
	if !found || !strings.Contains(head, description) {
		t.Fatalf("the document is\n%s", xml)
	}
	file := filepath.Join(t.TempDir(), name+".xml")
	if err := os.WriteFile(file, []byte(strings.Replace(head, description, other, 1)+tail), 0o644); err != nil {
		t.Fatal(err)
	}
	virsh(t, i, "define", file)
}

// shows waits until a machine is shown as it is to be.
func shows(t *testing.T, i *instance.Instance, name string, as func(openapi.VM) bool) {
	t.Helper()
	var v openapi.VM
	begin := time.Now()
	defer func() {
		if t.Failed() {
			t.Logf("%s is shown as %+v", name, v)
			return
		}
		t.Logf("%s is shown as it is %s after the change", name, time.Since(begin).Round(time.Millisecond))
	}()
	instance.Eventually(t, soon, name+" is shown as it is", func() bool {
		v = openapi.VM{} // a map keeps what it had
		i.Get("/api/vms/"+name, &v)
		return as(v)
	})
}

// tells waits until a machine's history has an event with a reason or cause.
func tells(t *testing.T, i *instance.Instance, name, event, cause string) {
	t.Helper()
	var h openapi.History
	instance.Eventually(t, soon, name+" tells of "+event+", "+cause, func() bool {
		i.Get("/api/vms/"+name+"/history?limit=1000", &h)
		for _, e := range h.Items {
			if e.Type == event && e.Reason != nil && *e.Reason == cause {
				return true
			}
		}
		return false
	})
}

// kill ends the emulator of a guest behind everybody's back.
func kill(t *testing.T, i *instance.Instance, name string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var v openapi.VM
	i.Get("/api/vms/"+name, &v)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil || !strings.Contains(string(b), "qemu-system") || !strings.Contains(string(b), v.ID.String()) {
			continue
		}
		pid := 0
		for _, r := range filepath.Base(filepath.Dir(f)) {
			pid = pid*10 + int(r-'0')
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("no emulator of %s", name)
}

// TestImport adopts a domain that others made, while it runs, and leaves its disk where it is.
func TestImport(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	dir, err := os.MkdirTemp("", "horcrux-foreign-") // which QEMU's own account may enter
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	disk := filepath.Join(dir, "old.raw")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(disk, make([]byte, 1<<20), 0o666)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "old.xml")
	xml := `<domain type='qemu'><name>old</name><description>of others</description><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>
<disk type='file' device='disk'><driver name='qemu' type='raw'/><source file='` + disk + `'/><target dev='hda' bus='ide'/></disk>
<sound model='ac97'/></devices></domain>`
	if err := os.WriteFile(file, []byte(xml), 0o644); err != nil {
		t.Fatal(err)
	}
	virsh(t, i, "define", file)
	virsh(t, i, "start", "old")
	marked := filepath.Join(t.TempDir(), "orphan.xml") // as an import that failed may leave it
	if err := os.WriteFile(marked, []byte(`<domain type='qemu'><name>orphan</name>
<metadata><horcrux:domain xmlns:horcrux='urn:horcrux:domain:1'/></metadata><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os></domain>`), 0o644); err != nil {
		t.Fatal(err)
	}
	virsh(t, i, "define", marked)
	names := func(all openapi.UnmanagedVMs) (names []string) {
		for _, v := range all.Items {
			names = append(names, v.NativeID)
		}
		slices.Sort(names)
		return names
	}
	before := virsh(t, i, "domid", "old")

	var all openapi.UnmanagedVMs
	i.Get("/api/vms/unmanaged", &all)
	if !slices.Equal(names(all), []string{"old", "orphan"}) || len(all.Missing) != 0 {
		t.Fatalf("unmanaged are %+v", all)
	}
	i.Must("POST", "/api/vms/import", map[string]any{"native_id": "orphan"})
	i.Must("DELETE", "/api/vms/orphan", nil)
	all = openapi.UnmanagedVMs{}
	i.Get("/api/vms/unmanaged", &all)
	if !slices.Equal(names(all), []string{"old"}) || all.Items[0].State != vm.StateRunning {
		t.Fatalf("unmanaged are %+v", all)
	}
	if status, p := i.Problem("POST", "/api/vms/import", map[string]any{"native_id": "nobody"}); status != http.StatusUnprocessableEntity || p.Fields[0].Field != "native_id" {
		t.Errorf("a guest that is not there: %d %+v", status, p)
	}
	i.Must("POST", "/api/vms/import", map[string]any{"native_id": "old"})
	var v openapi.VM
	i.Get("/api/vms/old", &v)
	if !v.Adopted || v.State != vm.StateRunning || v.Description != "of others" || v.MemoryMB != 64 || len(v.Disks) != 1 || v.Disks[0].Name != "hda" || v.ID != all.Items[0].ID {
		t.Errorf("adopted as %+v", v)
	}
	if after := virsh(t, i, "domid", "old"); after != before {
		t.Error("it was touched")
	}
	i.Get("/api/vms/unmanaged", &all)
	if len(all.Items) != 0 {
		t.Errorf("unmanaged are still %+v", all.Items)
	}
	if status, p := i.Problem("PATCH", "/api/vms/old", map[string]any{"machine": "q35"}); status != http.StatusUnprocessableEntity || p.Code != problem.InvalidValue {
		t.Errorf("another board: %d %+v", status, p)
	}
	i.Must("PATCH", "/api/vms/old", map[string]any{"memory_mb": 96, "description": "ours now"})
	if out := virsh(t, i, "dumpxml", "old", "--inactive"); !strings.Contains(out, "ac97") || !strings.Contains(out, "98304") || !strings.Contains(out, "bus='ide'") {
		t.Errorf("the next start has\n%s", out)
	}
	i.Must("POST", "/api/vms/old/stop", nil)
	i.Must("POST", "/api/vms/old/start", nil)
	i.Must("DELETE", "/api/vms/old?force=true", nil)
	if _, err := os.Stat(disk); err != nil {
		t.Error("the disk of others is gone")
	}
	if out := virsh(t, i, "list", "--all", "--name"); out != "" {
		t.Errorf("virsh still lists %q", out)
	}
}
