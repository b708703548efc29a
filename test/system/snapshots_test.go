package system_test

import (
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/accel/initrd"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/test/instance"
)

// TestSnapshots goes back and forth with machines, and asks virsh, qemu-img, the disks and the console of the guest what
// came of it.
func TestSnapshots(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	s := &snapshots{i}
	for _, part := range []struct {
		name string
		tell func(*snapshots, *testing.T)
	}{
		{"a machine that is off goes back to what its disk had", (*snapshots).off},
		{"what cannot be is refused, with the reason", (*snapshots).refused},
		{"disks that are kept are kept without snapshots", (*snapshots).deleted},
		{"a guest goes on where its memory was", (*snapshots).memory},
	} {
		i.Run(t, part.name, func(t *testing.T) { part.tell(s, t) })
	}
}

type snapshots struct{ *instance.Instance }

func (s *snapshots) vm(name string) (v openapi.VM) {
	s.Get("/api/vms/"+name, &v)
	return v
}

// file is the first disk of a machine.
func (s *snapshots) file(name string) string {
	return filepath.Join(s.Dir, "volumes", s.vm(name).Disks[0].VolumeID.String()+".qcow2")
}

func (s *snapshots) take(vm, name string, memory bool) {
	s.Must("POST", "/api/vms/"+vm+"/snapshots", map[string]any{"snapshot_name": name, "memory": memory, "description": "of " + name})
}

// tree is what a machine's list of snapshots says.
func (s *snapshots) tree(name string) string {
	var list openapi.VMSnapshotList
	s.Get("/api/vms/"+name+"/snapshots", &list)
	var all []string
	for _, o := range list.Items {
		if o.Parent != nil {
			all = append(all, o.Name+"<"+*o.Parent)
		} else {
			all = append(all, o.Name)
		}
	}
	return strings.Join(all, " ")
}

func (s *snapshots) off(t *testing.T) {
	s.Must("POST", "/api/vms", small("s1", map[string]any{"disks": []any{map[string]any{"size_gb": 1}}}))
	file := s.file("s1")
	for _, b := range []byte("ab") {
		writeDisk(t, file, b)
		s.take("s1", string(b), false)
	}
	writeDisk(t, file, 'x')
	s.Must("PATCH", "/api/vms/s1", map[string]any{"cpus": 2, "description": "changed"})
	s.Must("POST", "/api/vms/s1/snapshots/a/restore", nil)
	if b := readDisk(t, file); b != 'a' {
		t.Errorf("the disk has %q", b)
	}
	if v := s.vm("s1"); v.CPUs != 2 || v.Description != "changed" || v.State != vm.StateStopped || *v.Snapshot != "a" || len(v.Pending) != 0 {
		t.Errorf("shown as %+v", v)
	}
	if out := virsh(t, s.Instance, "dumpxml", "s1"); !strings.Contains(out, ">2</vcpu>") || !strings.Contains(out, "<description>changed") {
		t.Errorf("the configuration went back too:\n%s", out)
	}
	s.take("s1", "c", false)
	if got := s.tree("s1"); got != "a b<a c<a" {
		t.Errorf("the tree is %s", got)
	}
	if got := strings.Join(strings.Fields(virsh(t, s.Instance, "snapshot-list", "s1", "--tree")), " "); got != "a | +- b +- c" {
		t.Errorf("libvirt has the tree %s", got)
	}
	if r := s.CLI("vm", "snapshot", "list", "s1"); r.Code != 0 || !strings.Contains(r.Out, "\na ") || !strings.Contains(r.Out, "\n  b ") || !strings.Contains(r.Out, "\n  c ") {
		t.Errorf("exit %d, %s%s", r.Code, r.Out, r.Err)
	}
	if r := s.CLI("vm", "snapshot", "delete", "s1", "a"); r.Code != 0 {
		t.Errorf("exit %d, %s", r.Code, r.Err)
	}
	if got := s.tree("s1"); got != "b c" {
		t.Errorf("the tree is %s", got)
	}
	if out := virsh(t, s.Instance, "snapshot-list", "s1", "--roots", "--name"); strings.Join(strings.Fields(out), " ") != "b c" {
		t.Errorf("libvirt has the roots %s", out)
	}
	if got := diskSnapshots(t, file); strings.Join(got, " ") != "b c" {
		t.Errorf("the disk has the snapshots %q", got)
	}
	s.Must("POST", "/api/vms/s1/snapshots/b/restore", nil)
	if b := readDisk(t, file); b != 'b' {
		t.Errorf("the disk has %q", b)
	}
}

func (s *snapshots) refused(t *testing.T) {
	disk := func(format string) map[string]any {
		return map[string]any{"disks": []any{map[string]any{"size_gb": 1, "format": format}}}
	}
	s.Must("POST", "/api/vms", small("raw", disk("raw")))
	s.Must("POST", "/api/vms", small("none", nil))
	efi := disk("qcow2")
	efi["firmware"], efi["memory_mb"], efi["start"] = "uefi", 64, true
	s.Must("POST", "/api/vms", small("efi", efi))
	s.Must("POST", "/api/vms", small("grown", disk("qcow2")))
	s.take("grown", "a", false)
	s.Must("POST", "/api/vms/grown/disks", map[string]any{"size_gb": 1})
	virsh(t, s.Instance, "snapshot-create-as", "s1", "foreign")
	ask := func(name string, memory bool) map[string]any {
		return map[string]any{"snapshot_name": name, "memory": memory}
	}
	for _, r := range []struct {
		method, path string
		body         any
		status       int
		code         problem.Code
		says         string
	}{
		{"POST", "raw/snapshots", ask("a", false), http.StatusConflict, problem.InvalidState, "disk0 is raw"},
		{"POST", "none/snapshots", ask("a", false), http.StatusConflict, problem.InvalidState, "no disk"},
		{"POST", "efi/snapshots", ask("a", true), http.StatusConflict, problem.InvalidState, "firmware uefi"},
		{"POST", "efi/snapshots", ask("a", false), http.StatusConflict, problem.InvalidState, "ask for memory, or stop it"},
		{"POST", "s1/snapshots", ask("d", true), http.StatusUnprocessableEntity, problem.InvalidValue, "memory"},
		{"POST", "s1/snapshots", ask("12", false), http.StatusUnprocessableEntity, problem.InvalidValue, "snapshot_name"},
		{"POST", "s1/snapshots", ask("../d", false), http.StatusUnprocessableEntity, problem.InvalidValue, "snapshot_name"},
		{"POST", "s1/snapshots", ask("c", false), http.StatusConflict, problem.NameTaken, "snapshot_name"},
		{"POST", "s1/snapshots", ask("foreign", false), http.StatusConflict, problem.NameTaken, "the hypervisor has"},
		{"POST", "s1/snapshots/foreign/restore", nil, http.StatusNotFound, problem.NotFound, "foreign"},
		{"DELETE", "s1/snapshots/foreign", nil, http.StatusNotFound, problem.NotFound, "foreign"},
		{"POST", "grown/snapshots/a/restore", nil, http.StatusConflict, problem.InvalidState, "disk1 came since"},
		{"POST", "grown/disks/disk0/resize", map[string]any{"size_gb": 2}, http.StatusConflict, problem.InUse, "delete them first: a"},
		{"DELETE", "grown/disks/disk0", nil, http.StatusConflict, problem.InUse, "delete them first: a"},
	} {
		status, p := s.Problem(r.method, "/api/vms/"+r.path, r.body)
		said := p.Detail
		for _, f := range p.Fields {
			said += " " + f.Field + " " + f.Detail
		}
		if status != r.status || p.Code != r.code || !strings.Contains(said, r.says) {
			t.Errorf("%s %s %v: %d %s %s", r.method, r.path, r.body, status, p.Code, said)
		}
	}
	for _, name := range []string{"raw", "none", "efi"} {
		if out := virsh(t, s.Instance, "snapshot-list", name, "--name"); out != "" {
			t.Errorf("%s has snapshots %s", name, out)
		}
	}
	s.Must("DELETE", "/api/vms/grown/disks/disk1", nil)
	s.Must("POST", "/api/vms/grown/snapshots/a/restore", nil)
	s.Must("POST", "/api/vms/grown/start", nil)
	if status, p := s.Problem("POST", "/api/vms/grown/snapshots/a/restore", nil); status != http.StatusConflict || !strings.Contains(p.Detail, "stop it first") {
		t.Errorf("restore of what runs: %d %+v", status, p)
	}
	s.Must("DELETE", "/api/vms/efi?force=true", nil)
}

func (s *snapshots) deleted(t *testing.T) {
	file := s.file("s1")
	s.Must("DELETE", "/api/vms/s1?keep_disks=true", nil)
	if got := diskSnapshots(t, file); len(got) != 1 || got[0] != "foreign" { // that one is not ours
		t.Errorf("the disk has snapshots %q", got)
	}
	file = s.file("grown")
	s.Must("DELETE", "/api/vms/grown?force=true", nil)
	for _, left := range volumeFiles(t, s.Instance) {
		if left == file {
			t.Errorf("left behind: %s", left)
		}
	}
	if out := virsh(t, s.Instance, "list", "--all", "--name"); strings.Contains(out, "s1") || strings.Contains(out, "grown") {
		t.Errorf("libvirt has %s", out)
	}
}

func (s *snapshots) memory(t *testing.T) {
	kernel, image := guestFiles(t, s.Instance, initrd.Obey)
	s.Must("POST", "/api/vms", small("m1", map[string]any{
		"memory_mb": 128, "start": true, "disks": []any{map[string]any{"size_gb": 1}},
		"boot": map[string]any{"kernel": kernel, "initrd": image, "cmdline": "console=ttyS0"},
	}))
	w := watchDomains(t, s.Instance)
	said := w.console(t, "m1")
	instance.Eventually(t, 2*time.Minute, "the guest has come to user space", func() bool { return strings.Contains(said.String(), guest.Line) })
	s.take("m1", "up", true)
	if state := virsh(t, s.Instance, "domstate", "m1"); state != "running" {
		t.Errorf("it is %s", state)
	}
	s.Must("POST", "/api/vms/m1/pause", nil)
	s.take("m1", "held", true)
	s.Must("POST", "/api/vms/m1/stop", nil)
	writeDisk(t, s.file("m1"), 'x')
	s.Must("PATCH", "/api/vms/m1", map[string]any{"machine": "pc", "description": "since"})

	s.Must("POST", "/api/vms/m1/snapshots/held/restore", nil)
	if v := s.vm("m1"); v.State != vm.StatePaused || v.Machine != "q35" || string(v.Pending["machine"]) != `"pc"` || v.Description != "since" || *v.Snapshot != "held" {
		t.Errorf("shown as %+v", v)
	}
	if out := virsh(t, s.Instance, "domstate", "m1", "--reason"); !strings.HasPrefix(out, "paused") {
		t.Errorf("it is %s", out)
	}
	if live, next := virsh(t, s.Instance, "dumpxml", "m1"), virsh(t, s.Instance, "dumpxml", "m1", "--inactive"); !strings.Contains(live, "q35") || !strings.Contains(next, "i440fx") {
		t.Errorf("it runs as\n%s\nand starts as\n%s", live, next)
	}

	s.Must("POST", "/api/vms/m1/snapshots/up/restore", nil) // from what is paused
	if v := s.vm("m1"); v.State != vm.StateRunning || *v.Snapshot != "up" {
		t.Errorf("shown as %+v", v)
	}
	again := w.console(t, "m1")
	s.Must("POST", "/api/vms/m1/shutdown", map[string]any{"timeout_s": 60}) // it hears the button only where it was up
	if out := again.String(); strings.Contains(out, guest.Line) || !strings.Contains(out, "Power down") {
		t.Errorf("the guest did not go on but said:\n%s", out)
	}
	if v := s.vm("m1"); v.Machine != "pc" || len(v.Pending) != 0 {
		t.Errorf("shown as %+v", v)
	}
	if b := readDisk(t, s.file("m1")); b != 0 {
		t.Errorf("the disk has %q", b)
	}
	if got := s.tree("m1"); got != "up held<up" {
		t.Errorf("the tree is %s", got)
	}
	var h openapi.History
	s.Get("/api/vms/m1/history?limit=1000", &h)
	for _, e := range h.Items {
		if e.Type == "vm.drifted" || e.Type == "vm.repair_requested" {
			t.Errorf("what was restored is taken for a drift: %+v", e)
		}
	}
	s.Must("DELETE", "/api/vms/m1", nil)
}

func writeDisk(t *testing.T, file string, b byte) {
	t.Helper()
	disk(t, "qemu-io", "-f", "qcow2", "-c", "write -P "+strconv.Itoa(int(b))+" 0 512", file)
}

// readDisk is the first byte of what qemu-io dumps: "00000000:  61 61 …".
func readDisk(t *testing.T, file string) byte {
	t.Helper()
	out := disk(t, "qemu-io", "-r", "-f", "qcow2", "-c", "read -v 0 512", file)
	fields := strings.Fields(out)
	if len(fields) < 2 {
		t.Fatal(out)
	}
	b, err := strconv.ParseUint(fields[1], 16, 8)
	if err != nil {
		t.Fatal(out)
	}
	return byte(b)
}

// diskSnapshots are the names of those inside a disk.
func diskSnapshots(t *testing.T, file string) (names []string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(disk(t, "qemu-img", "snapshot", "-l", file)), "\n")
	for _, line := range lines[min(2, len(lines)):] { // after two of titles
		names = append(names, strings.Fields(line)[1])
	}
	return names
}

func disk(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
