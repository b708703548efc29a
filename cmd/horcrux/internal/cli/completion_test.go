package cli

import (
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// offered is what a shell is told for a command line whose last word is typed in part.
func offered(r result) string {
	lines := strings.Split(strings.TrimSpace(r.out), "\n")
	return strings.Join(lines[:len(lines)-1], " | ") // the last is the directive
}

func TestLiveNames(t *testing.T) {
	vms := answer("GET /api/vms", 200, onePage(aVM("web-1", vm.StateRunning), aVM("my-web", vm.StateStopped)))
	show := answer("GET /api/vms/web-1", 200, aVM("web-1", vm.StateRunning))
	pools := answer("GET /api/storage/pools", 200, onePage(aPool()))
	volumes := answer("GET /api/storage/pools/tank%2Fvms/volumes", 200, onePage(aVolume()))
	operations := answer("GET /api/operations", 200, onePage(anOperation("vm.stop", operation.StateRunning, nil)))
	letters := answer("GET /api/dead-letters", 200, openapi.DeadLetterList{Items: []openapi.DeadLetter{{Sequence: 7, At: noon, Reason: "panic", Subject: "s", Type: ref("vm.start")}}})
	history := answer("GET /api/vms/web-1/history", 200, onePage(
		openapi.HistoryEntry{Position: "AAEB", Version: 1, Time: noon, Type: "vm.create_requested", Actor: "uid:0", Before: map[string]any{}, After: map[string]any{}},
		openapi.HistoryEntry{Position: "AAEC", Version: 2, Time: noon, Type: "vm.updated", Actor: "uid:0", Before: map[string]any{}, After: map[string]any{}}))
	snapshots := answer("GET /api/vms/web-1/snapshots", 200, onePage(vm.Snapshot{Taken: vm.Taken{Name: "before", Description: "the upgrade", State: vm.StateStopped}, CreatedAt: noon}))
	for _, tc := range []struct {
		script []exchange
		line   []string
		want   string
	}{
		{[]exchange{vms}, []string{"vm", "start", ""}, "web-1\trunning | my-web\tstopped"},
		{[]exchange{vms}, []string{"vm", "show", "w"}, "web-1\trunning"},
		{[]exchange{vms}, []string{"vm", "show", "-o", "j", ""}, "web-1\trunning | my-web\tstopped"},
		{[]exchange{vms}, []string{"vm", "list", "--tag", "p"}, "prod"},
		{[]exchange{vms}, []string{"operation", "list", "--resource", "/api/vms/w"}, "/api/vms/web-1\trunning"},
		{[]exchange{pools}, []string{"pool", "show", ""}, "tank/vms\tdir /srv/vms"},
		{[]exchange{pools}, []string{"volume", "create", "t"}, "tank/vms\tdir /srv/vms"},
		{[]exchange{pools}, []string{"vm", "create", "--node", ""}, nodeID.String()},
		{[]exchange{volumes}, []string{"volume", "delete", "tank/vms", ""}, "data\tavailable"},
		{[]exchange{operations}, []string{"operation", "cancel", ""}, opID.String() + "\tvm.stop running"},
		{[]exchange{letters}, []string{"dlq", "retry", ""}, "7\tvm.start panic"},
		{[]exchange{history}, []string{"vm", "revert", "web-1", "--to", ""}, "AAEC\t2026-01-02 12:00:00 vm.updated | AAEB\t2026-01-02 12:00:00 vm.create_requested"},
		{[]exchange{show}, []string{"vm", "disk", "detach", "web-1", "disk0"}, "disk0\t10 GiB local"},
		{[]exchange{show}, []string{"vm", "nic", "detach", "web-1", "n"}, "nic0\tdefault"},
		{[]exchange{snapshots}, []string{"vm", "snapshot", "restore", "web-1", "b"}, "before\tthe upgrade"},
		{[]exchange{pools}, []string{"vm", "disk", "attach", "web-1", "size_gb=1,pool="}, "size_gb=1,pool=tank/vms\tdir /srv/vms"},
		{[]exchange{show}, []string{"vm", "update", "web-1", "--disk", "name="}, "name=disk0\t10 GiB local | name=disk1\t5 GiB local"},
		{nil, []string{"vm", "update", "--disk", "name="}, ""},
		{nil, []string{"vm", "show", "web-1", ""}, ""},           // nothing comes after it
		{nil, []string{"volume", "create", "tank/vms", "d"}, ""}, // a new name
	} {
		r := horcrux(t, tc.script, append([]string{cobra.ShellCompRequestCmd}, tc.line...)...)
		if got := offered(r); got != tc.want || r.code != 0 {
			t.Errorf("%q: %q, want %q; exit %d %s", tc.line, got, tc.want, r.code, r.err)
		}
		if !strings.Contains(r.out, ":4\n") && !strings.Contains(r.out, ":36\n") {
			t.Errorf("%q: the shell offers files: %q", tc.line, r.out)
		}
	}
}

func TestFixedValues(t *testing.T) {
	for line, want := range map[string]string{
		"vm list --state st":                 "stopped | starting | stopping",
		"vm list --state=pa":                 "paused",
		"volume list tank/vms --state ":      "creating | available | deleting",
		"operation list --state s":           "succeeded",
		"vm list -o ":                        "table | json | yaml | name",
		"vm create t1 --disk bus=s":          "bus=scsi | bus=sata",
		"vm create t1 --disk size_gb=1,p":    "size_gb=1,pool=",
		"vm create t1 --network link=":       "link=up | link=down",
		"vm disk attach t1 size_gb=1,bus=v":  "size_gb=1,bus=virtio",
		"vm list --backend ":                 "qemu | lxd | incus",
		"vm create t1 --firmware ":           "bios | uefi",
		"vm create t1 --machine q":           "q35",
		"volume create local data --format ": "qcow2 | raw",
		"pool list --sort t":                 "type",
		"vm list --sort name,-c":             "name,-created_at | name,-cpus",
		"operation list --sort=-created_at,": "-created_at,type | -created_at,state",
		"vm create t1 --cpus ":               "",
		"doctor --libvirt-private ":          "auto | yes | no",
		"doctor --log-level ":                "debug | info | warn | error",
		"help vm start":                      "start\tStart a virtual machine",
		"comp":                               "completion\tCompletion of commands, flags and live names for a shell",
	} {
		r := horcrux(t, nil, append([]string{cobra.ShellCompRequestCmd}, strings.Split(line, " ")...)...)
		if got := offered(r); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// Where nobody answers, or with a problem, a shell is offered nothing, in time, and the terminal is left alone.
func TestNamesOfNobody(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no", http.StatusForbidden)
	}))
	defer refusing.Close()
	for where, env := range map[string]map[string]string{
		"no server":  {},
		"no socket":  {"HORCRUX_DATA_DIR": t.TempDir()},
		"wrong port": {"HORCRUX_URL": "http://127.0.0.1:1"},
		"no URL":     {"HORCRUX_URL": ":"},
		"no answer":  {"HORCRUX_URL": "http://" + silent.Addr().String()},
		"not let in": {"HORCRUX_URL": refusing.URL},
	} {
		t.Run(where, func(t *testing.T) {
			t.Chdir(t.TempDir())
			a := &app{getenv: func(k string) string { return env[k] }}
			var out, errs bytes.Buffer
			root := a.root()
			root.SetOut(&out)
			root.SetErr(&errs)
			began := time.Now()
			code := Run(t.Context(), root, []string{cobra.ShellCompRequestCmd, "vm", "show", ""})
			if code != 0 || out.String() != ":4\n" && out.String() != ":36\n" {
				t.Errorf("exit %d: %q", code, out.String())
			}
			if strings.Contains(errs.String(), "rror") {
				t.Errorf("said %q", errs.String())
			}
			if took := time.Since(began); took > 30*askTime {
				t.Errorf("took %s", took)
			}
		})
	}
	r := horcrux(t, []exchange{refuse("GET /api/vms", problem.New(problem.Forbidden, "no"))}, cobra.ShellCompRequestCmd, "vm", "show", "")
	if got := offered(r); got != "" || strings.Contains(r.err, "rror") {
		t.Errorf("%q %q", got, r.err)
	}
}

// Every argument is one that has a source, or a new name. A kind to come is a line in arguments.
func TestEveryArgumentIsCompleted(t *testing.T) {
	var walk func(cmd *cobra.Command)
	seen := map[string]bool{}
	walk = func(cmd *cobra.Command) {
		for _, child := range cmd.Commands() {
			walk(child)
		}
		if cmd.HasSubCommands() {
			return
		}
		if cmd.ValidArgsFunction == nil {
			t.Errorf("%s: nothing completes it", cmd.CommandPath())
		}
		for _, name := range argumentNames(cmd) {
			seen[name] = true
			if argument(cmd, name) == nil && name != "NAME" && name != "SIZE" {
				t.Errorf("%s: nothing completes %s", cmd.CommandPath(), name)
			}
		}
	}
	walk((&app{}).root())
	for name := range arguments {
		if !seen[name] && !strings.HasPrefix(name, "horcrux ") {
			t.Errorf("no command takes %s", name)
		}
	}
}

// Each shell gets its script, and those that are here take it.
func TestScripts(t *testing.T) {
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}} {
		r := horcrux(t, nil, "completion", shell)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, cobra.ShellCompRequestCmd) {
			t.Fatalf("%s: exit %d %s", shell, r.code, r.err)
		}
		if _, err := exec.LookPath(check[0]); err != nil {
			continue // its grammar is cobra's care; that ours is the script of this shell is seen above
		}
		cmd := exec.CommandContext(t.Context(), check[0], check[1:]...)
		cmd.Stdin = strings.NewReader(r.out)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s does not take its script: %v\n%s", shell, err, out)
		}
	}
	if r := horcrux(t, nil, "completion", "tcsh"); r.code != exitUsage || !strings.Contains(r.err, "tcsh") {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
	if r := horcrux(t, nil, "completion", "bash", "x"); r.code != exitUsage {
		t.Errorf("exit %d: %s", r.code, r.err)
	}
}

func TestFieldsAreGivenOnce(t *testing.T) {
	got := fields("name", "state")(nil, nil, nil, "-name,")
	if !slices.Equal(got, []string{"-name,state"}) {
		t.Errorf("%q", got)
	}
}
