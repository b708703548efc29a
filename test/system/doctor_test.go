package system_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"horcrux/test/instance"
)

// finding is what doctor -o json says of one thing.
type finding struct{ Name, Status, Version, What, Mend string }

// diagnose runs horcrux doctor as it is configured like the instance and returns what it finds by name. uid 0 is
// whoever runs the test.
func diagnose(t *testing.T, i *instance.Instance, uid uint32, code int, more ...string) map[string]finding {
	t.Helper()
	args := append(append([]string{"doctor", "-o", "json"}, i.Args...), more...)
	var r instance.Result
	if uid == 0 {
		r = i.CLI(args...)
	} else {
		r = i.CLIAs(uid, args...)
	}
	var all []finding
	if err := json.Unmarshal([]byte(r.Out), &all); err != nil || r.Code != code {
		t.Fatalf("horcrux %q: exit code %d, want %d; %v\n%s%s", args, r.Code, code, err, r.Out, r.Err)
	}
	found := map[string]finding{}
	for _, f := range all {
		found[f.Name] = f
	}
	return found
}

func says(t *testing.T, found map[string]finding, name, status string, words ...string) {
	t.Helper()
	f := found[name]
	if f.Status != status {
		t.Errorf("%s: %+v, want %s", name, f, status)
	}
	for _, w := range words {
		if !strings.Contains(f.What+" "+f.Mend, w) {
			t.Errorf("%s: %+v does not say %q", name, f, w)
		}
	}
}

// TestDoctor looks at a running server, as root and as nobody, and at a data dir without one.
func TestDoctor(t *testing.T) {
	const nobody = 65534
	i := qemuInstance(t)
	before := diagnose(t, i, 0, 0)
	says(t, before, "server", "ok", "none runs")
	says(t, before, "data-dir", "ok", "first start")
	says(t, before, "libvirt", "ok", "private")
	if _, err := os.Stat(i.Dir); err == nil {
		t.Error("a look at it has made the data dir")
	}

	i.Start()
	found := diagnose(t, i, 0, 0)
	says(t, found, "data-dir", "ok", fmt.Sprintf("pid %d", i.Pid()))
	says(t, found, "server", "ok", "answers")
	for _, name := range []string{"server postgres", "server nats", "server hypervisor", "server storage", "server relay"} {
		says(t, found, name, "ok")
	}
	says(t, found, "certificates", "ok", "the CA is valid until")
	for _, name := range []string{"libvirt", "postgres", "qemu-img", "qemu-system-x86_64", "server"} {
		if found[name].Version == "" {
			t.Errorf("%+v has no version", found[name])
		}
	}
	says(t, found, "libvirt", "ok", "answers at", "libvirt-sock")
	if os.Geteuid() == 0 {
		found = diagnose(t, i, nobody, 0)
		says(t, found, "data-dir", "warn", "not looked at", "sudo horcrux doctor")
		says(t, found, "certificates", "warn", "not looked at")
		says(t, found, "libvirt", "warn", "closed")
		says(t, found, "server", "ok", "answers")
		says(t, found, "server hypervisor", "ok")
	}

	i.Kill()
	found = diagnose(t, i, 0, 0)
	says(t, found, "server", "ok", "none runs")
	says(t, found, "libvirt", "ok", "answers at") // it outlives the server
}

// A dependency that is down is found both by asking it and by asking the server.
func TestDoctorWithoutHypervisor(t *testing.T) {
	i := bareInstance(t)
	i.Start()
	const unwell = 9
	found := diagnose(t, i, 0, unwell)
	says(t, found, "libvirt", "fail", "/nonexistent", "--libvirt-private yes")
	says(t, found, "server hypervisor", "fail")
	says(t, found, "server postgres", "ok")
	r := i.CLI(append([]string{"doctor"}, i.Args...)...)
	if r.Code != unwell || !strings.Contains(r.Err, "libvirt, server hypervisor") || !strings.Contains(r.Out, "STATUS") {
		t.Errorf("exit code %d\n%s%s", r.Code, r.Out, r.Err)
	}
}

// TestCompletion presses Tab, with a server and without one.
func TestCompletion(t *testing.T) {
	i := bareInstance(t)
	i.Start()
	r := i.CLI("__complete", "volume", "list", "")
	if r.Code != 0 || !strings.HasPrefix(r.Out, "local\tdir "+i.Dir) {
		t.Errorf("exit code %d: %q", r.Code, r.Out)
	}
	i.Kill()
	r = i.CLI("__complete", "volume", "list", "")
	if r.Code != 0 || !strings.HasPrefix(r.Out, ":") || strings.Contains(r.Err, "rror") {
		t.Errorf("exit code %d: %q %q", r.Code, r.Out, r.Err)
	}
}
