package system_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/drivertest/guest"
	"horcrux/test/instance"
)

// statsPatience is for a figure to come: a sample is made every ten seconds.
const statsPatience = 90 * time.Second

// TestStats holds what the API tells of the use of a machine against what libvirt tells virsh.
func TestStats(t *testing.T) {
	t.Parallel()
	i := qemuInstance(t)
	i.Start()
	kernel, image := imageFile(t, i, guest.Kernel(t), "vmlinuz"), imageFile(t, i, guest.Telling(t), "initrd")
	i.Must("POST", "/api/vms", map[string]any{
		"name": "busy", "cpus": 2, "memory_mb": 128, "start": true, "boot": map[string]any{"kernel": kernel, "initrd": image, "cmdline": "console=ttyS0"},
		"disks": []any{map[string]any{"size_gb": 1}},
	})
	off := i.Must("POST", "/api/vms", small("off", map[string]any{"disks": []any{map[string]any{"size_gb": 1}}}))

	i.Run(t, "counters are libvirt's", func(t *testing.T) { countersAreLibvirts(t, i) })
	i.Run(t, "of a machine that is off nearly nothing is known", func(t *testing.T) {
		v := statsOf(i, "off")
		if v.ID != off.ResourceID || v.State != vm.StateStopped || v.CPU.UsedS != nil || v.CPU.Percent != nil || v.Memory.UsedMB != nil ||
			v.Memory.RSSMB != nil || v.Memory.BalloonMB != nil {
			t.Errorf("%+v", v)
		}
		for _, d := range v.Disks {
			if d.ReadBytes != nil || d.WriteOps != nil || d.ReadBytesRate != nil || d.Capacity == nil || *d.Capacity != 1<<30 {
				t.Errorf("disk %+v", d)
			}
		}
	})
	i.Run(t, "all of it is one answer, and horcrux top", func(t *testing.T) {
		all := allStats(i)
		if len(all.VMs) != 2 || len(all.Nodes) != 1 || len(all.Missing) != 0 {
			t.Fatalf("%+v", all)
		}
		if n := all.Nodes[0]; n.ID != all.VMs[0].Node || n.Name == "" || n.CPU.UsedS == nil || *n.CPU.UsedS <= 0 || n.Memory.UsedMB == nil {
			t.Errorf("the node uses %+v", n)
		}
		r := i.CLI("top", "--once", "--sort", "memory")
		if !regexp.MustCompile(`(?sm)^NODE +CPUS .*^NAME +NODE +STATE.*^busy +\S+ +running +2 .*^off +\S+ +stopped `).MatchString(r.Out) || r.Code != 0 {
			t.Errorf("top: %d\n%s%s", r.Code, r.Out, r.Err)
		}
		var shown struct{ VMs []openapi.VMStats }
		if err := json.Unmarshal([]byte(i.CLI("top", "-o", "json").Out), &shown); err != nil || len(shown.VMs) != 2 {
			t.Errorf("top -o json: %v %+v", err, shown)
		}
		if r := i.CLI("vm", "stats", "busy"); r.Code != 0 || !regexp.MustCompile(`(?m)^cpu +used_s=.*cpus=2$`).MatchString(r.Out) {
			t.Errorf("vm stats: %d\n%s%s", r.Code, r.Out, r.Err)
		}
	})
	i.Run(t, "the history grows", func(t *testing.T) {
		var h openapi.StatsHistory
		instance.Eventually(t, statsPatience, "there are two samples, one with a rate", func() bool {
			i.Get("/api/vms/busy/stats/history", &h)
			n := len(h.Items)
			return n >= 2 && h.Items[n-1].CPUPercent != nil && h.Items[n-1].MemoryRSSMB != nil && h.Items[n-1].At.After(h.Items[n-2].At)
		})
		i.Get("/api/stats/nodes/"+allStats(i).Nodes[0].ID.String()+"/history", &h)
		if len(h.Items) < 2 || h.Items[len(h.Items)-1].CPUPercent == nil || h.PeriodS != 10 {
			t.Errorf("of the node %+v", h)
		}
		if r := i.CLI("vm", "stats", "busy", "--history"); r.Code != 0 || strings.Count(r.Out, "\n") < 3 {
			t.Errorf("vm stats --history: %d\n%s%s", r.Code, r.Out, r.Err)
		}
	})
	i.Run(t, "/metrics tells it", func(t *testing.T) {
		label := fmt.Sprintf(`name="busy",vm="%s"`, statsOf(i, "busy").ID)
		text := string(i.Do("GET", "/metrics", nil).Bytes)
		for _, want := range []string{
			`(?m)^horcrux_vm_cpu_seconds_total\{` + label + `\} [0-9.e+]+$`, `(?m)^horcrux_vm_memory_assigned_bytes\{` + label + `\} 1\.34217728e\+08$`,
			`(?m)^horcrux_vm_disk_read_bytes_total\{disk="vda",` + label + `\} `, `(?m)^horcrux_vm_network_receive_bytes_total\{` + `name="busy",nic="0",vm=`,
			`(?m)^horcrux_vm_state\{name="off",state="stopped",vm=`, `(?m)^horcrux_node_cpu_seconds_total\{`,
		} {
			if !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("there is no %s", want)
			}
		}
		if regexp.MustCompile(`horcrux_vm_cpu_seconds_total\{name="off"`).MatchString(text) {
			t.Error("what is unknown is told")
		}
	})
	i.Run(t, "a start begins anew, and a machine that is gone has no use", func(t *testing.T) {
		before := *statsOf(i, "busy").CPU.UsedS
		i.Must("POST", "/api/vms/busy/stop", nil)
		instance.Eventually(t, statsPatience, "it uses nothing", func() bool { return statsOf(i, "busy").CPU.UsedS == nil })
		i.Must("POST", "/api/vms/busy/start", nil)
		instance.Eventually(t, statsPatience, "it begins anew", func() bool {
			v := statsOf(i, "busy")
			return v.CPU.UsedS != nil && (*v.CPU.UsedS < before || v.CPU.Percent != nil)
		})
		i.Must("DELETE", "/api/vms/busy?force=true", nil)
		if status, p := i.Problem("GET", "/api/vms/busy/stats", nil); status != http.StatusNotFound || p.Code != problem.NotFound {
			t.Errorf("%d %+v", status, p)
		}
		instance.Eventually(t, statsPatience, "metrics forget it", func() bool {
			return !strings.Contains(string(i.Do("GET", "/metrics", nil).Bytes), `name="busy"`)
		})
	})
	i.Run(t, "nothing of it is recorded", func(t *testing.T) {
		var log struct{ Items []struct{ Type string } }
		i.Get("/api/events?limit=1000", &log)
		for _, e := range log.Items {
			if !strings.HasPrefix(e.Type, "vm.") && !strings.HasPrefix(e.Type, "operation.") && !strings.HasPrefix(e.Type, "volume.") &&
				!strings.HasPrefix(e.Type, "pool.") && !strings.HasPrefix(e.Type, "network.") || strings.Contains(e.Type, "stats") {
				t.Errorf("there is %s", e.Type)
			}
		}
	})
	i.Run(t, "without a hypervisor it is unavailable", func(t *testing.T) {
		killLibvirt(t, i)
		instance.Eventually(t, statsPatience, "it is missing, or back", func() bool {
			a := i.Do("GET", "/api/vms/off/stats", nil)
			return a.StatusCode == http.StatusServiceUnavailable || a.StatusCode == http.StatusOK
		})
		instance.Eventually(t, statsPatience, "it is back", func() bool { return i.Do("GET", "/api/vms/off/stats", nil).StatusCode == http.StatusOK })
	})
}

func statsOf(i *instance.Instance, name string) (v openapi.VMStats) {
	i.T.Helper()
	i.Get("/api/vms/"+name+"/stats", &v)
	return v
}

func allStats(i *instance.Instance) (all struct {
	Nodes   []openapi.NodeStats
	VMs     []openapi.VMStats
	Missing []openapi.MissingNode
},
) {
	i.T.Helper()
	i.Get("/api/stats", &all)
	return all
}

// domstats is what virsh tells of a domain, by name.
func domstats(t *testing.T, i *instance.Instance, name string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for line := range strings.Lines(virsh(t, i, "domstats", name)) {
		field, text, _ := strings.Cut(strings.TrimSpace(line), "=")
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			out[field] = n
		}
	}
	return out
}

// countersAreLibvirts: each lies between what virsh is told before and after.
func countersAreLibvirts(t *testing.T, i *instance.Instance) {
	instance.Eventually(t, 4*time.Minute, "the guest is up and tells of its memory", func() bool {
		v := statsOf(i, "busy")
		return v.CPU.Percent != nil && len(v.Disks) == 1 && v.Disks[0].ReadBytesRate != nil && v.Memory.UsedMB != nil
	})
	time.Sleep(time.Second) // what was seen so far is old from now on
	before := domstats(t, i, "busy")
	v := statsOf(i, "busy")
	after := domstats(t, i, "busy")
	if v.State != vm.StateRunning || time.Since(v.At) > time.Minute || len(v.Disks) != 1 || len(v.NICs) != 1 {
		t.Fatalf("%+v", v)
	}
	between := func(field string, got *int64) {
		t.Helper()
		low, known := before[field]
		switch {
		case got == nil && known:
			t.Errorf("%s is unknown, virsh knows %d", field, low)
		case got != nil && (!known || *got < low || *got > after[field]):
			t.Errorf("%s is %d, virsh was told %d and %d (%t)", field, *got, low, after[field], known)
		}
	}
	mib := func(n *int64, field string) {
		t.Helper()
		// An emulator's memory may shrink and grow between two looks.
		low, high := min(before[field], after[field])>>10, max(before[field], after[field])>>10
		if _, known := before[field]; (n != nil) != known || n != nil && (*n < low-16 || *n > high+16) {
			t.Errorf("%s is %v MiB, virsh was told %d and %d", field, n, low, high)
		}
	}
	if used := *v.CPU.UsedS * 1e9; used < float64(before["cpu.time"])-1e6 || used > float64(after["cpu.time"])+1e6 || before["cpu.time"] == 0 {
		t.Errorf("CPU time %f, virsh was told %d and %d", used, before["cpu.time"], after["cpu.time"])
	}
	between("vcpu.current", v.CPU.CPUs)
	mib(v.Memory.AssignedMB, "balloon.maximum")
	mib(v.Memory.BalloonMB, "balloon.current")
	mib(v.Memory.RSSMB, "balloon.rss")
	if *v.Memory.AssignedMB != 128 {
		t.Errorf("assigned %d", *v.Memory.AssignedMB)
	}
	d, n := v.Disks[0], v.NICs[0]
	for field, got := range map[string]*int64{
		"block.0.rd.bytes": d.ReadBytes, "block.0.wr.bytes": d.WriteBytes, "block.0.rd.reqs": d.ReadOps, "block.0.wr.reqs": d.WriteOps,
		"block.0.physical": d.Allocated, "block.0.capacity": d.Capacity,
		"net.0.rx.bytes": n.RxBytes, "net.0.tx.bytes": n.TxBytes, "net.0.rx.pkts": n.RxPackets, "net.0.tx.pkts": n.TxPackets,
		"net.0.rx.errs": n.RxErrors, "net.0.tx.drop": n.TxDrops,
	} {
		between(field, got)
	}
	if *d.Capacity != 1<<30 {
		t.Errorf("a disk of 1 GiB has %d bytes", *d.Capacity)
	}
	mib(v.Memory.AvailableMB, "balloon.usable")
	mib(v.Memory.TotalMB, "balloon.available")
	mib(v.Memory.FreeMB, "balloon.unused")
	if m := v.Memory; m.UsedMB == nil || *m.UsedMB < 1 || *m.UsedMB != *m.TotalMB-*m.AvailableMB || *m.TotalMB > 128 {
		t.Errorf("the guest says that it uses %+v", m)
	}
	if !strings.Contains(virsh(t, i, "dumpxml", "busy"), `<stats period='10'/>`) {
		t.Error("the guest is not asked for its memory")
	}
}
