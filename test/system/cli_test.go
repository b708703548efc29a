package system_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"horcrux/pkg/openapi"
	"horcrux/test/instance"
)

// TestCLI types the commands of the README.
func TestCLI(t *testing.T) {
	i := qemuInstance(t)
	i.Start()
	run := func(t *testing.T, code int, args ...string) instance.Result {
		t.Helper()
		r := i.CLI(args...)
		if r.Code != code {
			t.Errorf("horcrux %q: exit code %d, want %d\n%s%s", args, r.Code, code, r.Out, r.Err)
		}
		return r
	}
	matches := func(t *testing.T, text, pattern string) {
		t.Helper()
		if !regexp.MustCompile(pattern).MatchString(text) {
			t.Errorf("no %s in\n%s", pattern, text)
		}
	}

	i.Run(t, "vm create, list and show", func(t *testing.T) {
		r := run(t, 0, "vm", "create", "c1", "--memory-mb", "32", "--no-network", "--disk", "1", "--tag", "web", "--start", "--reason", "to try it")
		if r.Out != "c1: vm.create succeeded\n" || r.Err != "" {
			t.Errorf("%q %q", r.Out, r.Err)
		}
		if state := virsh(t, i, "domstate", "c1"); state != "running" {
			t.Errorf("the domain is %s", state)
		}
		matches(t, run(t, 0, "vm", "list").Out, `(?m)^NAME +STATE +BACKEND.*\nc1 +running +qemu +1 +32 MiB +1 GiB +web `)
		for output, read := range map[string]func(string) (string, error){
			"name": func(s string) (string, error) { return strings.TrimSuffix(s, "\n"), nil },
			"json": func(s string) (string, error) {
				var l []openapi.VM
				err := json.Unmarshal([]byte(s), &l)
				return l[0].Name, err
			},
			"yaml": func(s string) (string, error) {
				var l []map[string]any
				err := yaml.Unmarshal([]byte(s), &l)
				name, _ := l[0]["name"].(string)
				return name, err
			},
		} {
			if name, err := read(run(t, 0, "vm", "list", "-o", output, "--tag", "web").Out); name != "c1" || err != nil {
				t.Errorf("-o %s: %q %v", output, name, err)
			}
		}
		if r := run(t, 0, "vm", "list", "--state", "stopped", "-o", "name"); r.Out != "" {
			t.Errorf("stopped: %q", r.Out)
		}
		matches(t, run(t, 0, "vm", "show", "c1").Out, `(?m)^state +running$`)
	})
	i.Run(t, "vm stop, start and shutdown", func(t *testing.T) {
		run(t, 0, "vm", "stop", "c1")
		id := strings.TrimSpace(regexp.MustCompile(`[0-9a-f-]{36}`).FindString(run(t, 0, "vm", "start", "c1", "--no-wait").Out))
		matches(t, run(t, 0, "operation", "wait", id).Out, `vm\.start succeeded`)
		matches(t, run(t, 0, "operation", "show", id).Out, `(?m)^state +succeeded$`)
		const failed = 8
		r := run(t, failed, "vm", "shutdown", "c1", "--timeout", "1")
		matches(t, r.Err, `(?s)^Error: Deadline exceeded: .*\nLog: horcrux operation log [0-9a-f-]{36}\n$`)
		run(t, failed, "operation", "wait", regexp.MustCompile(`[0-9a-f-]{36}`).FindString(r.Err))
		run(t, 0, "vm", "stop", "c1")
		if state := virsh(t, i, "domstate", "c1"); state != "shut off" {
			t.Errorf("the domain is %s", state)
		}
	})
	i.Run(t, "vm history and time travel", func(t *testing.T) {
		matches(t, run(t, 0, "vm", "history", "c1").Out, `vm\.started`)
		var entries []openapi.HistoryEntry
		if err := json.Unmarshal([]byte(run(t, 0, "vm", "history", "c1", "-o", "json").Out), &entries); err != nil {
			t.Fatal(err)
		}
		if got := types(entries)[:5]; got[4] != "vm.started" || entries[0].Reason == nil || *entries[0].Reason != "to try it" {
			t.Errorf("%q", got)
		}
		matches(t, run(t, 0, "vm", "show", "c1", "--at", entries[0].Position).Out, `(?m)^state +creating$`)
	})
	i.Run(t, "events --follow", func(t *testing.T) { followCLI(t, i) })
	i.Run(t, "operation list", func(t *testing.T) {
		matches(t, run(t, 0, "operation", "list", "--type", "vm.create").Out, `vm\.create +succeeded`)
	})
	i.Run(t, "features and version", func(t *testing.T) {
		matches(t, run(t, 0, "features").Out, `(?m)^qemu +virtual machines`)
		matches(t, run(t, 0, "features").Out, `(?m)^-lxc `)
		var v struct{ Client, Server *openapi.Version }
		if err := json.Unmarshal([]byte(run(t, 0, "version", "-o", "json").Out), &v); err != nil || v.Server == nil || *v.Server != *v.Client {
			t.Errorf("%v %+v", err, v)
		}
	})
	i.Run(t, "what goes wrong has its exit code and says how to mend it", func(t *testing.T) {
		for _, c := range []struct {
			code int
			says string
			args []string
		}{
			{2, `--help`, []string{"vm", "creat"}},
			{2, `--nope`, []string{"vm", "list", "--nope"}},
			{2, `(?m)^  cpus +`, []string{"vm", "create", "c2", "--cpus", "0"}},
			{2, `(?m)^  disks\[0\]\.pool +there is no pool`, []string{"vm", "create", "c2", "--disk", "pool=none,size_gb=1"}},
			{3, `Not found`, []string{"vm", "show", "none"}},
			{4, `(?s)Name taken.*To mend: `, []string{"vm", "create", "c1"}},
			{4, `stopped already`, []string{"vm", "stop", "c1"}},
			{4, `Changed meanwhile`, []string{"vm", "delete", "c1", "--if-match", "1"}},
		} {
			matches(t, run(t, c.code, c.args...).Err, c.says)
		}
	})
	i.Run(t, "vm delete", func(t *testing.T) {
		run(t, 0, "vm", "delete", "c1")
		if files := volumeFiles(t, i); len(files) != 0 || run(t, 0, "vm", "list", "-o", "name").Out != "" {
			t.Errorf("left behind: %q", files)
		}
	})
	i.Run(t, "no server", func(t *testing.T) {
		i.Kill()
		const unavailable = 6
		run(t, unavailable, "vm", "list")
		run(t, 0, "version") // of the client
	})
}

// followCLI reads what `events --follow` prints while something happens, and interrupts it as Ctrl-C does.
func followCLI(t *testing.T, i *instance.Instance) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var list openapi.OperationList
	i.Get("/api/operations?limit=1", &list)
	cmd := i.Command(ctx, "events", "--follow", "--type", "vm.*", "--after", list.Position, "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	i.Must("PATCH", "/api/vms/c1", map[string]any{"tags": []string{"a"}})
	i.Must("PATCH", "/api/vms/c1", map[string]any{"tags": []string{"b"}})
	var got []string
	for lines := bufio.NewScanner(out); len(got) < 2 && lines.Scan(); {
		var e openapi.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Type)
	}
	if !slices.Equal(got, []string{"vm.updated", "vm.updated"}) {
		t.Errorf("followed %q", got)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("interrupted, it ended with %v", err)
	}
}
