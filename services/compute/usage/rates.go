package usage

import (
	"math"
	"time"

	wire "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
)

// rate is the growth of a counter a second. It is nil where either end is unknown, no time has passed, or the counter
// went back: it began again.
func rate[N int64 | float64](before, now *N, passed time.Duration) *float64 {
	if before == nil || now == nil || passed <= 0 || *now < *before {
		return nil
	}
	return rounded(float64(*now-*before) / passed.Seconds())
}

// rounded to a tenth: more digits than that are noise.
func rounded(v float64) *float64 {
	v = math.Round(v*10) / 10
	return &v
}

// percent is how busy CPUs were.
func percent(before, now wire.CPU, passed time.Duration) *float64 {
	if now.CPUs == nil || *now.CPUs < 1 || before.UsedS == nil || now.UsedS == nil || passed <= 0 || *now.UsedS < *before.UsedS {
		return nil
	}
	return rounded((*now.UsedS - *before.UsedS) / passed.Seconds() / float64(*now.CPUs) * 100)
}

// compare fills in the rates of a domain since it was observed before. A guest that is off, or was, has none.
func (d *Domain) compare(before Domain, passed time.Duration) {
	if d.State != hypervisor.Running && d.State != hypervisor.Paused || d.Run != before.Run {
		return
	}
	d.CPU.Percent = percent(before.CPU, d.CPU, passed)
	was := make(map[string]wire.Disk, len(before.Disks))
	for _, disk := range before.Disks {
		was[disk.Name] = disk
	}
	for i := range d.Disks {
		now := &d.Disks[i]
		b, ok := was[now.Name]
		if !ok {
			continue
		}
		now.ReadBytesRate, now.WriteBytesRate = rate(b.ReadBytes, now.ReadBytes, passed), rate(b.WriteBytes, now.WriteBytes, passed)
		now.ReadOpsRate, now.WriteOpsRate = rate(b.ReadOps, now.ReadOps, passed), rate(b.WriteOps, now.WriteOps, passed)
	}
	cards := make(map[string]wire.NIC, len(before.NICs))
	for _, nic := range before.NICs {
		cards[nic.Name] = nic
	}
	for i := range d.NICs {
		now := &d.NICs[i]
		b, ok := cards[now.Name]
		if !ok {
			continue
		}
		now.RxBytesRate, now.TxBytesRate = rate(b.RxBytes, now.RxBytes, passed), rate(b.TxBytes, now.TxBytes, passed)
		now.RxPacketsRate, now.TxPacketsRate = rate(b.RxPackets, now.RxPackets, passed), rate(b.TxPackets, now.TxPackets, passed)
	}
}

// compareNode fills in the rates of the node.
func compareNode(n *wire.Node, before wire.Node, passed time.Duration) {
	n.CPU.Percent = percent(before.CPU, n.CPU, passed)
	n.Disk.ReadBytesRate = rate(before.Disk.ReadBytes, n.Disk.ReadBytes, passed)
	n.Disk.WriteBytesRate = rate(before.Disk.WriteBytes, n.Disk.WriteBytes, passed)
	n.Network.RxBytesRate = rate(before.Network.RxBytes, n.Network.RxBytes, passed)
	n.Network.TxBytesRate = rate(before.Network.TxBytes, n.Network.TxBytes, passed)
}

// sum of what is known of items; nil if nothing is.
func sum[T any](items []T, value func(T) *float64) *float64 {
	var total *float64
	for _, item := range items {
		if v := value(item); v != nil {
			if total == nil {
				total = new(float64)
			}
			*total += *v
		}
	}
	return total
}
