package system_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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

// TestChange changes a machine in every way, while it runs and while it does not, and asks virsh, QEMU and qemu-img what
// came of it.
func TestChange(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	kernel, image := guestFiles(t, i, initrd.Obey)
	i.Must("POST", "/api/vms", map[string]any{
		"name": "c1", "cpus": 1, "max_cpus": 2, "memory_mb": 160, "start": true, "vnc": map[string]any{"password": "s3cret"},
		"boot":  map[string]any{"kernel": kernel, "initrd": image, "cmdline": "console=ttyS0"},
		"disks": []any{map[string]any{"size_gb": 1}},
	})
	w := watchDomains(t, i)
	said := w.console(t, "c1")
	instance.Eventually(t, 2*time.Minute, "the guest has come to user space", func() bool { return strings.Contains(said.String(), guest.Line) })
	c := &changing{Instance: i}
	for _, part := range []struct {
		name string
		tell func(*changing, *testing.T)
	}{
		{"what can change live does, the rest is pending", (*changing).live},
		{"a disk comes, grows and goes while it runs", (*changing).disks},
		{"a NIC comes and goes while it runs", (*changing).nics},
		{"the password is nowhere to be read", (*changing).secret},
		{"what was pending holds from the next start", (*changing).next},
		{"the same while it is off", (*changing).off},
		{"a revert brings it back", (*changing).revert},
		{"what cannot be is refused by its field", (*changing).refused},
	} {
		i.Run(t, part.name, func(t *testing.T) { part.tell(c, t) })
		if t.Failed() {
			return
		}
	}
}

type changing struct {
	*instance.Instance
	before openapi.VM
}

func (c *changing) vm() (v openapi.VM) {
	c.Get("/api/vms/c1", &v)
	return v
}

func (c *changing) live(t *testing.T) {
	c.before = c.vm()
	c.Must("PATCH", "/api/vms/c1", map[string]any{
		"cpus": 2, "memory_mb": 128, "description": "changed", "machine": "pc", "cpu_model": "max", "rng": false, "agent": true,
		"networks": []any{map[string]any{"name": "nic0", "link": "down"}},
		"disks":    []any{map[string]any{"name": "disk0", "limits": map[string]any{"read_iops": 50}, "cache": "none"}},
	})
	v := c.vm()
	if v.CPUs != 2 || v.MemoryMB != 128 || v.Description != "changed" || v.Machine != "q35" || v.Networks[0].Link != "down" ||
		v.Disks[0].Limits.ReadIOPS != 50 || v.Disks[0].Cache != "default" {
		t.Errorf("shown as %+v", v)
	}
	var pending []string
	for name, value := range v.Pending {
		if name != "disks" {
			pending = append(pending, name+"="+string(value))
		}
	}
	slices.Sort(pending)
	if got, want := strings.Join(pending, " "), `agent=true cpu_model="max" machine="pc" rng=false`; got != want || v.Pending["disks"] == nil {
		t.Errorf("pending %s, want %s and disks", got, want)
	}
	if out := virsh(t, c.Instance, "vcpucount", "c1", "--live", "--current"); out != "2" {
		t.Errorf("virsh counts %s CPUs", out)
	}
	mac := *v.Networks[0].MAC
	if out := virsh(t, c.Instance, "domif-getlink", "c1", mac); !strings.Contains(out, "down") {
		t.Errorf("the link is %s", out)
	}
	if out := virsh(t, c.Instance, "blkdeviotune", "c1", "vda"); !strings.Contains(out, "read_iops_sec  : 50") {
		t.Errorf("limits are %s", out)
	}
	if out := virsh(t, c.Instance, "dumpxml", "c1"); !strings.Contains(out, "q35") {
		t.Error("what runs is another machine")
	}
}

// disk is the file of the machine's n-th disk.
func (c *changing) file(n int) string {
	return filepath.Join(c.Dir, "volumes", c.vm().Disks[n].VolumeID.String()+".qcow2")
}

func (c *changing) disks(t *testing.T) {
	op := c.Must("POST", "/api/vms/c1/disks", map[string]any{"size_gb": 1})
	if op.Type != "vm.attach_disk" || len(op.Steps) != 2 {
		t.Errorf("operation %s of %d steps", op.Type, len(op.Steps))
	}
	if out := virsh(t, c.Instance, "domblklist", "c1"); !strings.Contains(out, "vdb") || !strings.Contains(out, c.file(1)) {
		t.Fatalf("disks are\n%s", out)
	}
	c.Must("POST", "/api/vms/c1/disks/disk1/resize", map[string]any{"size_gb": 3})
	if out := virsh(t, c.Instance, "domblkinfo", "c1", "vdb"); !strings.Contains(out, fmt.Sprint(3<<30)) {
		t.Errorf("QEMU has it as\n%s", out)
	}
	var volume openapi.Volume
	c.Get("/api/storage/pools/local/volumes/"+c.vm().Disks[1].VolumeID.String(), &volume)
	if v := c.vm(); v.Disks[1].SizeGB != 3 || volume.SizeGB != 3 {
		t.Errorf("disk of %d GiB, volume of %d", v.Disks[1].SizeGB, volume.SizeGB)
	}
	gone := c.file(1)
	c.Must("DELETE", "/api/vms/c1/disks/disk1", nil)
	if out := virsh(t, c.Instance, "domblklist", "c1"); strings.Contains(out, "vdb") {
		t.Errorf("disks are\n%s", out)
	}
	if _, err := os.Stat(gone); err == nil {
		t.Error("the volume is still there")
	}
	if out := virsh(t, c.Instance, "dumpxml", "c1", "--inactive"); strings.Contains(out, "vdb") {
		t.Error("the next start has the disk")
	}
}

func (c *changing) nics(t *testing.T) {
	c.Must("POST", "/api/vms/c1/networks", map[string]any{"mtu": 1400})
	n := c.vm().Networks
	if len(n) != 2 || n[1].Name != "nic1" || n[1].MAC == nil {
		t.Fatalf("NICs are %+v", n)
	}
	if out := virsh(t, c.Instance, "domiflist", "c1"); !strings.Contains(out, *n[1].MAC) {
		t.Errorf("NICs are\n%s", out)
	}
	c.Must("DELETE", "/api/vms/c1/networks/nic1", nil)
	for _, which := range [][]string{{"domiflist", "c1"}, {"domiflist", "c1", "--inactive"}} {
		if out := virsh(t, c.Instance, which...); strings.Contains(out, *n[1].MAC) {
			t.Errorf("%s: NICs are\n%s", which, out)
		}
	}
}

func (c *changing) secret(t *testing.T) {
	for _, password := range []string{"s3cret", "an0ther"} {
		if password == "an0ther" {
			c.Must("PATCH", "/api/vms/c1", map[string]any{"vnc": map[string]any{"password": password}})
		}
		if out := virsh(t, c.Instance, "dumpxml", "c1", "--security-info"); !strings.Contains(out, "passwd='"+password+"'") {
			t.Errorf("QEMU does not ask for %s", password)
		}
	}
	v := c.vm()
	if v.VNC.Password == nil || len(v.Pending) != 5 {
		t.Errorf("screen %+v, pending %v", v.VNC, v.Pending)
	}
	everything := string(c.Do("GET", "/api/events?limit=1000", nil).Bytes) + string(c.Do("GET", "/api/vms/c1/history", nil).Bytes) +
		string(c.Do("GET", "/api/operations?limit=1000", nil).Bytes) + c.Log()
	for _, args := range commandLines(t) {
		everything += args
	}
	for _, password := range []string{"s3cret", "an0ther"} {
		if strings.Contains(everything, password) {
			t.Errorf("%s can be read", password)
		}
	}
}

// commandLines are the arguments of all processes.
func commandLines(t *testing.T) (all []string) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil { // a process may end meanwhile
			all = append(all, string(b))
		}
	}
	return all
}

func (c *changing) next(t *testing.T) {
	c.Must("POST", "/api/vms/c1/stop", nil)
	if v := c.vm(); len(v.Pending) != 0 || v.Machine != "pc" || v.Disks[0].Cache != "none" || v.RNG || !v.Agent {
		t.Errorf("shown as %+v", v)
	}
	c.Must("POST", "/api/vms/c1/start", nil)
	out := virsh(t, c.Instance, "dumpxml", "c1")
	for _, want := range []string{"i440fx", "cache='none'", "org.qemu.guest_agent.0", "<link state='down'/>", "<read_iops_sec>50</read_iops_sec>"} {
		if !strings.Contains(out, want) {
			t.Errorf("what runs has no %s", want)
		}
	}
	if strings.Contains(out, "<rng") {
		t.Error("what runs has a random number generator")
	}
}

func (c *changing) off(t *testing.T) {
	c.Must("POST", "/api/vms/c1/stop", nil)
	c.Must("POST", "/api/vms/c1/disks", map[string]any{"size_gb": 1, "bus": "scsi"})
	c.Must("POST", "/api/vms/c1/disks/disk1/resize", map[string]any{"size_gb": 2})
	if info, err := os.Stat(c.file(1)); err != nil || info.Size() == 0 {
		t.Fatal(info, err)
	}
	if out := virsh(t, c.Instance, "domblkinfo", "c1", "sdc"); !strings.Contains(out, fmt.Sprint(2<<30)) {
		t.Errorf("libvirt has it as\n%s", out)
	}
	c.Must("POST", "/api/vms/c1/networks", map[string]any{"network": "default", "model": "e1000"})
	c.Must("PATCH", "/api/vms/c1", map[string]any{"cpus": 1, "firmware": "uefi", "machine": "q35", "secure_boot": true, "tpm": true, "memory_mb": 256})
	v := c.vm()
	if v.CPUs != 1 || v.Firmware != "uefi" || !v.SecureBoot || !v.TPM || len(v.Pending) != 0 || len(v.Disks) != 2 || len(v.Networks) != 2 {
		t.Errorf("shown as %+v", v)
	}
	c.Must("POST", "/api/vms/c1/start", nil)
	out := virsh(t, c.Instance, "dumpxml", "c1")
	for _, want := range []string{"secure='yes'", "<nvram", "tpm-crb", "bus='scsi'", "type='e1000'", "<smm state='on'"} {
		if !strings.Contains(out, want) {
			t.Errorf("what runs has no %s:\n%s", want, out)
		}
	}
	if args := strings.Join(commandLines(t), "\n"); !strings.Contains(args, "swtpm") {
		t.Error("no TPM runs")
	}
	c.Must("POST", "/api/vms/c1/stop", nil)
	kept := c.file(1)
	c.Must("DELETE", "/api/vms/c1/disks/disk1?keep=true", nil)
	if _, err := os.Stat(kept); err != nil {
		t.Error(err)
	}
	c.Must("DELETE", "/api/storage/pools/local/volumes/"+strings.TrimSuffix(filepath.Base(kept), ".qcow2"), nil)
}

func (c *changing) revert(t *testing.T) {
	var h openapi.History
	c.Get("/api/vms/c1/history?limit=1000", &h)
	at := slices.IndexFunc(h.Items, func(e openapi.HistoryEntry) bool { return e.Type == "vm.started" })
	c.Must("POST", "/api/vms/c1/revert", map[string]any{"to": h.Items[at].Position})
	v := c.vm()
	if v.CPUs != 1 || v.Firmware != "bios" || v.SecureBoot || v.TPM || v.MemoryMB != 160 || v.CPUModel != c.before.CPUModel || v.Networks[0].Link != "up" ||
		v.Disks[0].Limits != (vm.IOLimits{}) || v.Disks[0].Cache != "default" || !v.RNG || v.Agent {
		t.Errorf("shown as %+v", v)
	}
	if out := virsh(t, c.Instance, "dumpxml", "c1"); strings.Contains(out, "secure-boot") || strings.Contains(out, "tpm") || !strings.Contains(out, "<rng") {
		t.Errorf("the domain is\n%s", out)
	}
	if op := c.Operation("POST", "/api/vms/c1/start", nil); op.State != operation.StateSucceeded {
		t.Errorf("it does not start: %+v", op.Error)
	}
}

func (c *changing) refused(t *testing.T) {
	for _, r := range []struct {
		method, path string
		body         any
		status       int
		code         problem.Code
		field        string
	}{
		{"PATCH", "", map[string]any{"cpus": 4000}, http.StatusUnprocessableEntity, problem.InvalidValue, "cpus"},
		{"PATCH", "", map[string]any{"secure_boot": true}, http.StatusUnprocessableEntity, problem.InvalidValue, "secure_boot"},
		{"PATCH", "", map[string]any{"networks": []any{map[string]any{"name": "nic9", "link": "down"}}}, http.StatusUnprocessableEntity, problem.InvalidValue, "networks[0].name"},
		{"PATCH", "", map[string]any{"networks": []any{map[string]any{"name": "nic0", "network": "nowhere"}}}, http.StatusUnprocessableEntity, problem.InvalidValue, "networks[0].network"},
		{"PATCH", "", map[string]any{"vnc": map[string]any{"password": "far too long"}}, http.StatusUnprocessableEntity, problem.InvalidValue, "vnc.password"},
		{"PATCH", "", map[string]any{"boot": map[string]any{"initrd": "/etc/passwd"}}, http.StatusUnprocessableEntity, problem.InvalidValue, "boot.initrd"},
		{"POST", "/disks", map[string]any{"size_gb": 1, "bus": "sata"}, http.StatusUnprocessableEntity, problem.InvalidValue, "bus"},
		{"POST", "/disks", map[string]any{"size_gb": 1, "pool": "nowhere"}, http.StatusUnprocessableEntity, problem.InvalidValue, "pool"},
		{"POST", "/disks/disk0/resize", map[string]any{"size_gb": 1}, http.StatusConflict, problem.InvalidState, ""},
		{"DELETE", "/disks/disk9", nil, http.StatusNotFound, problem.NotFound, ""},
		{"DELETE", "/networks/nic9", nil, http.StatusNotFound, problem.NotFound, ""},
	} {
		status, p := c.Problem(r.method, "/api/vms/c1"+r.path, r.body)
		if status != r.status || p.Code != r.code || r.field != "" && (len(p.Fields) != 1 || p.Fields[0].Field != r.field) {
			t.Errorf("%s %s %v: %d %+v", r.method, r.path, r.body, status, p)
		}
	}
}
