package usage

import (
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unsafe"

	wire "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
)

func ref[T any](v T) *T { return &v }

func TestRate(t *testing.T) {
	for _, tt := range []struct {
		name        string
		before, now *int64
		passed      time.Duration
		want        *float64
	}{
		{"grows", ref[int64](10), ref[int64](30), 10 * time.Second, ref(2.0)},
		{"stands", ref[int64](10), ref[int64](10), time.Second, ref(0.0)},
		{"in less than a second", ref[int64](0), ref[int64](1), 250 * time.Millisecond, ref(4.0)},
		{"went back", ref[int64](10), ref[int64](9), time.Second, nil},
		{"unknown before", nil, ref[int64](9), time.Second, nil},
		{"unknown now", ref[int64](9), nil, time.Second, nil},
		{"no time passed", ref[int64](1), ref[int64](9), 0, nil},
		{"time went back", ref[int64](1), ref[int64](9), -time.Second, nil},
		{"large", ref[int64](0), ref[int64](math.MaxInt64), time.Second, ref(float64(math.MaxInt64))},
	} {
		got := rate(tt.before, tt.now, tt.passed)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCompare(t *testing.T) {
	rates := func(change func(before, now *Domain)) (n int) {
		before, now := busy(1, 10), busy(1, 20)
		change(&before, &now)
		now.compare(before, time.Second)
		for _, r := range []*float64{
			now.CPU.Percent, now.Disks[0].ReadBytesRate, now.Disks[0].WriteBytesRate, now.Disks[0].ReadOpsRate, now.Disks[0].WriteOpsRate,
			now.NICs[0].RxBytesRate, now.NICs[0].TxBytesRate, now.NICs[0].RxPacketsRate, now.NICs[0].TxPacketsRate,
		} {
			if r != nil {
				n++
			}
		}
		return n
	}
	for name, c := range map[string]struct {
		want   int
		change func(before, now *Domain)
	}{
		"as it was":             {9, func(_, _ *Domain) {}},
		"started again":         {0, func(_, now *Domain) { now.Run++ }},
		"off":                   {0, func(_, now *Domain) { now.State = hypervisor.Off }},
		"paused":                {9, func(_, now *Domain) { now.State = hypervisor.Paused }},
		"another disk":          {5, func(_, now *Domain) { now.Disks[0].Name = "vdb" }},
		"another card":          {5, func(before, _ *Domain) { before.NICs[0].Name = "vnet1" }},
		"no CPUs":               {8, func(_, now *Domain) { now.CPU.CPUs = nil }},
		"an emulator that hung": {5, func(before, _ *Domain) { before.Disks[0] = wire.Disk{Name: "vda"} }},
	} {
		if n := rates(c.change); n != c.want {
			t.Errorf("%s: %d rates, want %d", name, n, c.want)
		}
	}
}

// TestSettle: what a guest told holds for a while, and never what it did not tell.
func TestSettle(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		told time.Time
		used *int64
	}{
		"just now": {now.Add(-time.Second), ref[int64](60)}, "long ago": {now.Add(-2 * toldFor), nil}, "never": {time.Time{}, nil},
	} {
		d := Domain{Told: c.told, Memory: wire.Memory{TotalMB: ref[int64](100), AvailableMB: ref[int64](40)}}
		d.settle(now)
		if u := d.Memory.UsedMB; (u == nil) != (c.used == nil) || u != nil && *u != *c.used || (d.Memory.TotalMB == nil) != (c.used == nil) {
			t.Errorf("%s: %+v", name, d.Memory)
		}
	}
}

func TestRing(t *testing.T) {
	var r ring
	for i := range 3*samples + 7 {
		r.add(point{at: uint32(i), values: [figures]float32{cpuPercent: float32(i)}})
		if len(r.points) > samples {
			t.Fatalf("%d points", len(r.points))
		}
	}
	all := r.since(time.Unix(-1, 0))
	for i, s := range all {
		if want := 2*samples + 7 + i; s.At.Unix() != int64(want) || *s.CPUPercent != float64(want) {
			t.Fatalf("sample %d is of %d: %v", i, s.At.Unix(), *s.CPUPercent)
		}
	}
	if late := r.since(time.Unix(int64(3*samples+1), 0)); len(all) != samples || len(late) != 5 {
		t.Errorf("%d samples, %d late ones", len(all), len(late))
	}
	if size := unsafe.Sizeof(point{}); size > 36 {
		t.Errorf("a point takes %d bytes", size)
	}
	unknown := (&Domain{}).point(time.Now()).sample()
	if unknown.CPUPercent != nil || unknown.MemoryUsedMB != nil || unknown.MemoryRSSMB != nil || unknown.DiskReadRate != nil || unknown.NetworkTxRate != nil {
		t.Errorf("what is unknown is %+v", unknown)
	}
}

func TestHost(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{
		"proc/stat":                      "cpu  100 20 30 5000 60 7 8 9 10 0\ncpu0 1 1 1 1 1 1 1 1 1 1\ncpu1 1 1 1 1 1 1 1 1 1 1\nintr 1\n",
		"proc/meminfo":                   "MemTotal:       2048 kB\nMemFree:         100 kB\nMemAvailable:   1024 kB\n",
		"proc/diskstats":                 " 254 0 vda 1 0 10 0 1 0 20 0\n 254 1 vda1 1 0 10 0 1 0 20 0\n 7 0 loop0 1 0 10 0 1 0 20 0\n 254 16 vdb 1 0 1 0 1 0 2 0\n",
		"proc/net/dev":                   "Inter-|   Receive  | Transmit\n face |bytes\n  eth0:12345 1 0 0 0 0 0 0 678 1 0 0 0 0 0 0\n    lo: 5 1 0 0 0 0 0 0 6 1 0 0 0 0 0 0\n",
		"sys/block/vda/device/vendor":    "",
		"sys/block/vdb/device/vendor":    "",
		"sys/class/net/eth0/device/id":   "",
		"sys/class/net/lo/statistics/rx": "",
	} {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := Host(root).Usage(time.Now())
	if *n.CPU.UsedS != 1.74 || *n.CPU.CPUs != 2 || *n.Memory.TotalMB != 2 || *n.Memory.UsedMB != 1 || *n.Memory.AvailableMB != 1 ||
		*n.Disk.ReadBytes != 11*512 || *n.Disk.WriteBytes != 22*512 || *n.Network.RxBytes != 12345 || *n.Network.TxBytes != 678 {
		t.Errorf("%+v %+v %+v %+v", n.CPU, n.Memory, n.Disk, n.Network)
	}
	if n := Host(t.TempDir()).Usage(time.Now()); n.CPU.UsedS != nil || n.Memory.UsedMB != nil || n.Disk.ReadBytes != nil || n.Network.RxBytes != nil {
		t.Errorf("where nothing can be read: %+v", n)
	}
	if n := Host("/").Usage(time.Now()); n.CPU.UsedS == nil || *n.CPU.UsedS <= 0 || n.Memory.TotalMB == nil {
		t.Errorf("of this machine: %+v", n)
	}
}
