package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
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
)

var update = flag.Bool("update", false, "write testdata anew")

// What each command prints is in testdata.
func TestOutput(t *testing.T) {
	vms := answer("GET /api/vms", 200, onePage(aVM("web-1", vm.StateRunning), aVM("a-much-longer-name", vm.StateStopped)))
	show := answer("GET /api/vms/web-1", 200, aVM("web-1", vm.StateRunning))
	history := answer("GET /api/vms/web-1/history", 200, onePage(
		openapi.HistoryEntry{Position: "AAEB", Version: 1, Time: noon, Type: "vm.create_requested", Actor: "uid:0", Before: map[string]any{}, After: map[string]any{"state": "creating"}},
		openapi.HistoryEntry{Position: "AAEB", Version: 2, Time: noon, Type: "vm.define_requested", Actor: "uid:0", Before: map[string]any{}, After: map[string]any{}},
		openapi.HistoryEntry{
			Position: "AAEC", Version: 2, Time: noon, Type: "vm.updated", Actor: "token:admin", Reason: ref("ticket 7"),
			Before: map[string]any{"tags": []string{}, "autostart": false, "version": 1}, After: map[string]any{"tags": []string{"web"}, "autostart": true, "version": 2},
		}))
	failed := anOperation("vm.start", operation.StateFailed, problem.New(problem.EffectFailed, "the guest did not start"))
	operations := answer("GET /api/operations", 200, onePage(failed, anOperation("vm.stop", operation.StateRunning, nil)))
	features := answer("GET /api/features", 200, openapi.FeatureList{Items: []openapi.Feature{
		{Name: "qemu", Built: true, Description: "Virtual machines on QEMU"}, {Name: "docker", Description: "Containers on Docker"},
	}})
	log := answer("GET /api/operations/"+opID.String()+"/log", 200, onePage(openapi.OperationLogEntry{
		Position: "AAEB", Time: noon, Type: "operation.step_failed", Step: ref("disk 0"), Error: problem.New(problem.StorageUnavailable, "the pool is gone").Document(), Log: ref("open /srv:\tno such file\n"),
	}))
	snapshot := func(name string, parent *string, memory bool, state vm.State) vm.Snapshot {
		return vm.Snapshot{Taken: vm.Taken{Name: name, Parent: parent, Memory: memory, State: state, Description: "of " + name}, CreatedAt: noon}
	}
	snapshots := answer("GET /api/vms/web-1/snapshots", 200, onePage(
		snapshot("base", nil, false, vm.StateStopped), snapshot("left", ref("base"), true, vm.StateRunning),
		snapshot("right", ref("base"), false, vm.StateStopped), snapshot("leaf", ref("left"), true, vm.StatePaused)))
	for name, tc := range map[string]struct {
		script []exchange
		args   string
	}{
		"vm-snapshot-list":      {[]exchange{snapshots}, "vm snapshot list web-1"},
		"vm-snapshot-list-json": {[]exchange{snapshots}, "vm snapshot list web-1 -o json"},
		"vm-list":               {[]exchange{vms}, "vm list"},
		"vm-list-json":          {[]exchange{vms}, "vm list -o json"},
		"vm-list-yaml":          {[]exchange{vms}, "vm list -o yaml"},
		"vm-list-name":          {[]exchange{vms}, "vm list -o name"},
		"vm-list-empty":         {[]exchange{answer("GET /api/vms", 200, page[vm.View]{Items: []vm.View{}})}, "vm list -o json"},
		"vm-show":               {[]exchange{show}, "vm show web-1"},
		"vm-show-yaml":          {[]exchange{show}, "vm show web-1 -o yaml"},
		"vm-history":            {[]exchange{history}, "vm history web-1"},
		"operation-list":        {[]exchange{operations}, "operation list"},
		"operation-show":        {[]exchange{answer("GET /api/operations/"+opID.String(), 200, failed)}, "operation show " + opID.String()},
		"operation-log":         {[]exchange{log}, "operation log " + opID.String()},
		"network-list":          {[]exchange{answer("GET /api/networks", 200, onePage(aNetwork()))}, "network list"},
		"network-show":          {[]exchange{answer("GET /api/networks/lan", 200, aNetwork())}, "network show lan"},
		"pool-list":             {[]exchange{answer("GET /api/storage/pools", 200, onePage(aPool()))}, "pool list"},
		"pool-show":             {[]exchange{answer("GET /api/storage/pools/tank%2Fvms", 200, aPool())}, "pool show tank/vms"},
		"volume-list":           {[]exchange{answer("GET /api/storage/pools/tank%2Fvms/volumes", 200, onePage(aVolume()))}, "volume list tank/vms"},
		"volume-show":           {[]exchange{answer("GET /api/storage/pools/local/volumes/data", 200, aVolume())}, "volume show local data"},
		"events":                {[]exchange{answer("GET /api/events", 200, onePage(anEvent(1), anEvent(2)))}, "events"},
		"features":              {[]exchange{features}, "features"},
		"features-name":         {[]exchange{features}, "features -o name"},
	} {
		t.Run(name, func(t *testing.T) {
			r := horcrux(t, tc.script, strings.Fields(tc.args)...)
			if r.code != 0 || r.err != "" {
				t.Fatalf("exit %d: %s", r.code, r.err)
			}
			golden(t, name, r.out)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestVersion(t *testing.T) {
	server := answer("GET /api/version", 200, openapi.Version{Version: "1.2.4", Commit: "def", Go: "go1.26"})
	r := horcrux(t, []exchange{server}, "version", "-o", "json")
	var v versions
	if err := json.Unmarshal([]byte(r.out), &v); err != nil || r.code != 0 {
		t.Fatal(r, err)
	}
	if v.Client.Version != "1.2.3" || v.Use != "qemu -docker" || v.Server == nil || v.Server.Version != "1.2.4" {
		t.Errorf("%s", r.out)
	}
}

// Without a server version still says what this binary is, and everything else how to find one.
func TestWithoutServer(t *testing.T) {
	for command, want := range map[string]int{"version": 0, "vm list": exitUnavailable} {
		for where, env := range map[string]map[string]string{
			"nobody listens": {"HORCRUX_DATA_DIR": t.TempDir()},
			"wrong port":     {"HORCRUX_URL": "http://127.0.0.1:1"},
		} {
			a := &app{build: Build{Version: "1.2.3"}, getenv: func(k string) string { return env[k] }}
			var out, errs bytes.Buffer
			root := a.root()
			root.SetOut(&out)
			root.SetErr(&errs)
			if code := Run(t.Context(), root, strings.Fields(command)); code != want || strings.Contains(out.String(), "1.2.3") != (want == 0) || want != 0 && !strings.Contains(errs.String(), "horcrux serve") {
				t.Errorf("%s, %s: exit %d\n%s%s", command, where, code, out.String(), errs.String())
			}
		}
	}
}

// What each changing command sends.
func TestRequests(t *testing.T) {
	done := anOperation("vm.change", operation.StateSucceeded, nil)
	spec := filepath.Join(t.TempDir(), "web.yaml")
	if err := os.WriteFile(spec, []byte("cpus: 4\ntags: [a]\ndisks:\n- size_gb: 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ call, args, want string }{
		"create": {
			"POST /api/vms", "vm create t1 --cpus 1 --memory-mb 128 --kernel /k --initrd /i --cmdline console=ttyS0 --disk 1 --start --reason why",
			`POST /api/vms?reason=why&wait=60 {"boot":{"cmdline":"console=ttyS0","initrd":"/i","kernel":"/k"},"cpus":1,"disks":[{"size_gb":1}],"memory_mb":128,"name":"t1","start":true}`,
		},
		"create with all of a disk": {
			"POST /api/vms", "vm create t1 --disk pool=local,size_gb=2,bus=scsi,format=raw,boot_order=1 --network lan --network network=default,model=e1000",
			`POST /api/vms?wait=60 {"disks":[{"boot_order":1,"bus":"scsi","format":"raw","pool":"local","size_gb":2}],"name":"t1","networks":[{"network":"lan"},{"model":"e1000","network":"default"}]}`,
		},
		"create without network": {"POST /api/vms", "vm create t1 --no-network", `POST /api/vms?wait=60 {"name":"t1","networks":[]}`},
		"create from a file": {
			"POST /api/vms", "vm create t1 -f " + spec + " --cpus 2",
			`POST /api/vms?wait=60 {"cpus":2,"disks":[{"size_gb":3}],"name":"t1","tags":["a"]}`,
		},
		"start":               {"POST /api/vms/t1/start", "vm start t1", "POST /api/vms/t1/start?wait=60"},
		"start, not waiting":  {"POST /api/vms/t1/start", "vm start t1 --no-wait", "POST /api/vms/t1/start?wait=0"},
		"start, wait=false":   {"POST /api/vms/t1/start", "vm start t1 --wait=false", "POST /api/vms/t1/start?wait=0"},
		"stop":                {"POST /api/vms/t1/stop", "vm stop t1", "POST /api/vms/t1/stop?wait=60"},
		"stop, asking":        {"POST /api/vms/t1/stop", "vm stop t1 --force=false --timeout 9", `POST /api/vms/t1/stop?force=false&wait=60 {"timeout_s":9}`},
		"shutdown":            {"POST /api/vms/t1/shutdown", "vm shutdown t1", `POST /api/vms/t1/shutdown?wait=60 {"timeout_s":120}`},
		"update":              {"PATCH /api/vms/t1", "vm update t1 --tag a --tag b --autostart", `PATCH /api/vms/t1?wait=60 {"autostart":true,"tags":["a","b"]}`},
		"update, no tags":     {"PATCH /api/vms/t1", "vm update t1 --no-tags --description=", `PATCH /api/vms/t1?wait=60 {"description":"","tags":[]}`},
		"delete":              {"DELETE /api/vms/t1", "vm delete t1 --force --keep-disks --if-match 3", "DELETE /api/vms/t1?force=true&keep_disks=true&wait=60"},
		"revert":              {"POST /api/vms/t1/revert", "vm revert t1 --to AAEB", `POST /api/vms/t1/revert?wait=60 {"to":"AAEB"}`},
		"network create":      {"POST /api/networks", "network create lan --ipv4 192.168.130.1/24 --ipv6 fd00:130::1/64 --dhcp=false", `POST /api/networks?wait=60 {"dhcp":false,"ipv4":"192.168.130.1/24","ipv6":"fd00:130::1/64","name":"lan"}`},
		"network on a bridge": {"POST /api/networks", "network create lan --mode bridge --bridge br0", `POST /api/networks?wait=60 {"bridge":"br0","mode":"bridge","name":"lan"}`},
		"network delete":      {"DELETE /api/networks/lan", "network delete lan --if-match 3", "DELETE /api/networks/lan?wait=60"},
		"volume create":       {"POST /api/storage/pools/tank%2Fvms/volumes", "volume create tank/vms data --size-gb 7 --format raw --thin=false", `POST /api/storage/pools/tank%2Fvms/volumes?wait=60 {"format":"raw","name":"data","size_gb":7,"thin":false}`},
		"volume delete":       {"DELETE /api/storage/pools/local/volumes/data", "volume delete local data", "DELETE /api/storage/pools/local/volumes/data?wait=60"},
		"an operation's end":  {"POST /api/operations/" + opID.String() + "/cancel", "operation cancel " + opID.String(), "POST /api/operations/" + opID.String() + "/cancel"},
		"a list with filters": {"GET /api/vms", "vm list --state running --tag web -q w --sort -name --autostart=false --limit 5", "GET /api/vms?autostart=false&limit=5&q=w&sort=-name&state=running&tag=web"},
		"an object as it was": {"GET /api/vms/t1", "vm show t1 --at 2026-01-02T12:00:00Z", "GET /api/vms/t1?at=2026-01-02T12%3A00%3A00Z"},
		"events of some kind": {"GET /api/events", "events --type vm.* --type pool.defined --after AAEB --limit 3", "GET /api/events?after=AAEB&limit=3&type=vm.%2A&type=pool.defined"},
	} {
		t.Run(name, func(t *testing.T) {
			reply := answer(tc.call, 200, done)
			switch {
			case strings.HasPrefix(tc.call, "GET /api/vms/"):
				reply = answer(tc.call, 200, aVM("t1", vm.StateStopped))
			case strings.HasPrefix(tc.call, "GET "):
				reply = answer(tc.call, 200, page[int]{Items: []int{}})
			}
			r := horcrux(t, []exchange{reply}, strings.Fields(tc.args)...)
			if r.code != 0 {
				t.Fatalf("exit %d: %s", r.code, r.err)
			}
			if got := r.asked[0]; got != tc.want {
				t.Errorf("sent\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestPagesAreFollowed(t *testing.T) {
	first := page[vm.View]{Items: []vm.View{aVM("a", vm.StateStopped)}, Next: ref("c1"), Position: "AAEB"}
	r := horcrux(t, []exchange{answer("GET /api/vms", 200, first), answer("GET /api/vms", 200, onePage(aVM("b", vm.StateStopped)))}, "vm", "list", "-o", "name")
	if r.out != "a\nb\n" || !strings.Contains(r.asked[1], "cursor=c1") {
		t.Errorf("%q after %v", r.out, r.asked)
	}
	r = horcrux(t, []exchange{answer("GET /api/vms", 200, first)}, "vm", "list", "-o", "name", "--limit", "1")
	if r.out != "a\n" {
		t.Errorf("limited: %q", r.out)
	}
}

func TestWaiting(t *testing.T) {
	start := "POST /api/vms/t1/start"
	get := "GET /api/operations/" + opID.String()
	queued := answer(start, 202, anOperation("vm.start", operation.StateQueued, nil))
	running := answer(get, 200, anOperation("vm.start", operation.StateRunning, nil))
	succeeded := answer(get, 200, anOperation("vm.start", operation.StateSucceeded, nil))
	for name, tc := range map[string]struct {
		script []exchange
		args   string
		out    string
	}{
		"until it has ended":   {[]exchange{queued, running, succeeded}, "vm start t1", "t1: vm.start succeeded\n"},
		"not at all":           {[]exchange{queued}, "vm start t1 --no-wait", "t1: vm.start queued, operation " + opID.String() + "\n"},
		"and print the name":   {[]exchange{queued, succeeded}, "vm start t1 -o name", "t1\n"},
		"for one of old":       {[]exchange{running, succeeded}, "operation wait " + opID.String(), opID.String() + ": vm.start succeeded\n"},
		"for one that is over": {[]exchange{succeeded}, "operation wait " + opID.String() + " -o name", opID.String() + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := horcrux(t, tc.script, strings.Fields(tc.args)...)
			if r.code != 0 || r.out != tc.out || r.err != "" {
				t.Errorf("exit %d, %q, %q", r.code, r.out, r.err)
			}
		})
	}
}

func TestProgress(t *testing.T) {
	op := anOperation("vm.create", operation.StateRunning, nil)
	op.Progress = 50
	op.Steps = []operation.Step{{Name: "disk 0", State: "succeeded"}, {Name: "define", State: "running"}}
	var out bytes.Buffer
	drawProgress(&out, op, noon.Add(2500*time.Millisecond))
	want := clearLine + "[############............]  50% vm.create running define 2s"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

// Every code of the catalogue ends with its exit code, refused at once or kept by a failed operation, and is
// explained.
func TestExitCodes(t *testing.T) {
	start := "POST /api/vms/t1/start"
	seen := map[int]bool{}
	listed := []problem.Code{
		problem.MalformedRequest, problem.Unauthenticated, problem.Forbidden, problem.NotFound, problem.InvalidState, problem.VersionConflict,
		problem.InvalidValue, problem.InsufficientResources, problem.TooManyRequests, problem.Internal, problem.Unavailable, problem.HypervisorUnavailable,
	}
	for _, code := range problem.Codes() {
		p := problem.New(code, "because of %s", code)
		failed := answer(start, 200, anOperation("vm.start", operation.StateFailed, p))
		scripts := map[string]exchange{"failed": failed}
		if slices.Contains(listed, code) {
			scripts["refused"] = refuse(start, p)
		}
		for how, script := range scripts {
			t.Run(fmt.Sprintf("%s %s", how, code), func(t *testing.T) {
				r := horcrux(t, []exchange{script}, "vm", "start", "t1")
				seen[r.code] = true
				if r.code != code.Exit() || r.out != "" {
					t.Errorf("exit %d, want %d; printed %q", r.code, code.Exit(), r.out)
				}
				for _, part := range []string{code.Title(), "because of " + string(code), code.Mend()} {
					if !strings.Contains(r.err, part) {
						t.Errorf("%q does not say %q", r.err, part)
					}
				}
			})
		}
	}
	t.Run("canceled", func(t *testing.T) {
		r := horcrux(t, []exchange{answer(start, 200, anOperation("vm.start", operation.StateCanceled, nil))}, "vm", "start", "t1")
		if seen[r.code] = true; r.code != 8 {
			t.Errorf("exit %d", r.code)
		}
	})
	t.Run("all of them", func(t *testing.T) {
		for code := 1; code <= 8; code++ {
			if !seen[code] {
				t.Errorf("nothing ended with %d", code)
			}
		}
	})
}

func TestErrorBlock(t *testing.T) {
	p := problem.Invalid(problem.Field{Field: "cpus", Detail: "must be at most 4095"}, problem.Field{Field: "disks[0].size_gb", Detail: "must be at least 1"})
	p.Operation = opID.String()
	r := horcrux(t, []exchange{refuse("POST /api/vms", p)}, "vm", "create", "t1")
	golden(t, "error-block", r.err)
	failed := anOperation("vm.start", operation.StateFailed, problem.New(problem.EffectFailed, "the guest did not start"))
	r = horcrux(t, []exchange{answer("POST /api/vms/t1/start", 200, failed)}, "vm", "start", "t1")
	golden(t, "error-failed", r.err)
}

func TestUsage(t *testing.T) {
	for args, says := range map[string]string{
		"vm":                                     "",
		"vmm":                                    "unknown command",
		"vm stat t1":                             "start",
		"vm start":                               "takes VM",
		"vm list x":                              "takes no arguments",
		"vm list --colour":                       "--colour",
		"vm create t1 --memory 128":              "did you mean --memory-mb?",
		"vm create t1 --cpus two":                `--cpus takes a whole number, not "two"`,
		"vm stop t1 --force=maybe":               "true or false",
		"vm start t1 --wait 5":                   `takes VM, not "t1 5"`,
		"help nope":                              `unknown command "nope"`,
		"help vm strt":                           "did you mean start",
		"doctor --listen nowhere":                "address with a port",
		"doctor x":                               "takes no arguments",
		"vm list -o xml":                         "xml",
		"vm update t1":                           "flag",
		"vm update t1 --tag a --no-tags":         "exclude",
		"vm revert t1":                           "--to",
		"vm create t1 --disk size=3":             "size",
		"vm create t1 --disk size_gb=3,x":        "key=value",
		"vm create t1 --disk size_gb=big":        "size_gb",
		"vm create t1 --network a --no-network":  "exclude",
		"vm create t1 -f /nonexistent/file.yaml": "no such file",
		"volume create local data":               "--size-gb",
		"operation show x":                       "not the id",
	} {
		t.Run(args, func(t *testing.T) {
			r := horcrux(t, nil, strings.Fields(args)...)
			if says == "" {
				if r.code != 0 || !strings.Contains(r.out, "shutdown") {
					t.Errorf("exit %d: %s", r.code, r.out)
				}
				return
			}
			if r.code != exitUsage || !strings.Contains(r.err, says) || !strings.Contains(r.err, "--help") {
				t.Errorf("exit %d: %s", r.code, r.err)
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for args, says := range map[string]string{"help": "Available Commands", "help vm": "shutdown", "help vm start": "horcrux vm start VM", "--version": "1.2.3\n"} {
		if r := horcrux(t, nil, strings.Fields(args)...); r.code != 0 || !strings.Contains(r.out, says) || r.err != "" {
			t.Errorf("%s: exit %d: %s%s", args, r.code, r.out, r.err)
		}
	}
}

// A server's text cannot move the cursor of the terminal.
func TestControlCharactersAreNotPrinted(t *testing.T) {
	v := aVM("web-1", vm.StateRunning)
	v.Description = "a\x1b[2Jb\nc"
	r := horcrux(t, []exchange{answer("GET /api/vms/web-1", 200, v)}, "vm", "show", "web-1")
	if r.code != 0 || strings.Contains(r.out, "\x1b") || !strings.Contains(r.out, "a [2Jb c") {
		t.Errorf("%q", r.out)
	}
}
