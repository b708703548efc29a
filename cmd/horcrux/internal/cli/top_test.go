package cli

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/usage"
)

// use is a machine that runs, with a disk and a card.
func use(name string, cpu float64, rss int64, read, sent float64) usage.VM {
	return usage.VM{
		ID: vmID, Name: name, Node: nodeID, State: vm.StateRunning, At: noon, CPU: usage.CPU{Percent: &cpu, CPUs: ref[int64](2)},
		Memory: usage.Memory{AssignedMB: ref[int64](1024), RSSMB: &rss},
		Disks:  []usage.Disk{{Name: "vda", ReadBytesRate: &read}, {Name: "vdb"}}, NICs: []usage.NIC{{Name: "vnet0", TxBytesRate: &sent}},
	}
}

func stats(t *testing.T, vms ...usage.VM) exchange {
	all := usage.All{
		Nodes:   []usage.Node{{ID: nodeID, Name: "n1", At: noon, Memory: usage.NodeMemory{TotalMB: ref[int64](4096)}}},
		Missing: []usage.Missing{{ID: opID, Name: "n2"}},
	}
	for _, v := range vms {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		all.VMs = append(all.VMs, b)
	}
	return answer("GET /api/stats", 200, all)
}

func TestTop(t *testing.T) {
	off := usage.VM{ID: vmID, Name: "off", Node: nodeID, State: vm.StateStopped, At: noon, Disks: []usage.Disk{}, NICs: []usage.NIC{}}
	all := stats(t, off, use("a", 1, 400, 1_234_567, 10), use("b", 90, 300, 0, 2000), use("c", 50, 500, 10, 5))
	for by, want := range map[string]string{"cpu": "b c a off", "memory": "c a b off", "disk": "a c b off", "net": "b a c off"} {
		if got := strings.Join(strings.Fields(horcrux(t, []exchange{all}, "top", "--sort", by, "-o", "name").out), " "); got != want {
			t.Errorf("by %s: %s, want %s", by, got, want)
		}
	}
	r := horcrux(t, []exchange{all}, "top", "--once")
	for _, want := range []string{
		`(?m)^n1 +- +- +4096 `, `(?m)^n2 +does not answer `, `(?m)^a +n1 +running +2 +1\.0 +1024 +- +400 +1\.2 MB +- +- +10 B$`, `(?m)^off +n1 +stopped( +-){9}$`,
	} {
		if !regexp.MustCompile(want).MatchString(r.out) || r.code != 0 {
			t.Errorf("no %s in\n%s%s", want, r.out, r.err)
		}
	}
	for _, args := range [][]string{{"top", "--sort", "name"}, {"top", "--interval", "0"}} {
		if r := horcrux(t, nil, args...); r.code != 2 {
			t.Errorf("%q: exit code %d", args, r.code)
		}
	}
}

func TestVMStats(t *testing.T) {
	r := horcrux(t, []exchange{answer("GET /api/vms/a/stats", 200, use("a", 1, 400, 3, 10))}, "vm", "stats", "a")
	if !strings.Contains(r.out, "rss_mb=400") || strings.Contains(r.out, "used_mb") || r.code != 0 {
		t.Errorf("%s%s", r.out, r.err)
	}
	h := usage.NoHistory(vmID)
	h.Items = []usage.Sample{{At: noon, CPUPercent: ref(12.5)}, {At: noon}}
	r = horcrux(t, []exchange{answer("GET /api/vms/a/stats/history", 200, h)}, "vm", "stats", "a", "--history")
	if !regexp.MustCompile(`(?m)^2026-01-02 12:00:00 +12\.5( +-){6}$`).MatchString(r.out) || r.code != 0 {
		t.Errorf("%s%s", r.out, r.err)
	}
}

func TestBytesText(t *testing.T) {
	for v, want := range map[float64]string{0: "0 B", 999: "999 B", 999.7: "1.0 kB", 1500: "1.5 kB", 2e6: "2.0 MB", 3.21e9: "3.2 GB", 4e12: "4.0 TB"} {
		if got := bytesText(&v); got != want {
			t.Errorf("%s is %q, want %q", fmt.Sprint(v), got, want)
		}
	}
	if bytesText(nil) != "" {
		t.Error("nothing is something")
	}
}
