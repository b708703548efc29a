package usage

import (
	"math"
	"time"

	wire "horcrux/pkg/usage"
)

// What a history holds: samples of the last hour.
const (
	period  = wire.Period
	samples = int(time.Hour / period)
)

// point is a sample of a history in 36 bytes. What is unknown is not a number. A float32 has seven digits, more than a
// rate over ten seconds means.
type point struct {
	at     uint32 // seconds since 1970
	values [figures]float32
}

// The figures of a point.
const (
	cpuPercent = iota
	memoryUsed
	memoryRSS
	diskRead
	diskWrite
	networkRx
	networkTx
	figures
)

func figure[N int64 | float64](v *N) float32 {
	if v == nil {
		return float32(math.NaN())
	}
	return float32(*v)
}

// point of a domain.
func (d *Domain) point(at time.Time) point {
	return point{at: uint32(at.Unix()), values: [figures]float32{
		cpuPercent: figure(d.CPU.Percent), memoryUsed: figure(d.Memory.UsedMB), memoryRSS: figure(d.Memory.RSSMB),
		diskRead:  figure(sum(d.Disks, func(d wire.Disk) *float64 { return d.ReadBytesRate })),
		diskWrite: figure(sum(d.Disks, func(d wire.Disk) *float64 { return d.WriteBytesRate })),
		networkRx: figure(sum(d.NICs, func(n wire.NIC) *float64 { return n.RxBytesRate })),
		networkTx: figure(sum(d.NICs, func(n wire.NIC) *float64 { return n.TxBytesRate })),
	}}
}

func nodePoint(n wire.Node) point {
	return point{at: uint32(n.At.Unix()), values: [figures]float32{
		cpuPercent: figure(n.CPU.Percent), memoryUsed: figure(n.Memory.UsedMB), memoryRSS: figure[int64](nil),
		diskRead: figure(n.Disk.ReadBytesRate), diskWrite: figure(n.Disk.WriteBytesRate),
		networkRx: figure(n.Network.RxBytesRate), networkTx: figure(n.Network.TxBytesRate),
	}}
}

// sample is the point for a reader.
func (p point) sample() wire.Sample {
	value := func(i int) *float64 {
		if v := float64(p.values[i]); !math.IsNaN(v) {
			return rounded(v)
		}
		return nil
	}
	whole := func(i int) *int64 {
		if v := p.values[i]; v == v {
			n := int64(v)
			return &n
		}
		return nil
	}
	return wire.Sample{
		At: time.Unix(int64(p.at), 0).UTC(), CPUPercent: value(cpuPercent), MemoryUsedMB: whole(memoryUsed), MemoryRSSMB: whole(memoryRSS),
		DiskReadRate: value(diskRead), DiskWriteRate: value(diskWrite), NetworkRxRate: value(networkRx), NetworkTxRate: value(networkTx),
	}
}

// ring is a history. It grows to its bound and then forgets the oldest.
type ring struct {
	points []point
	next   int // where the oldest is, once it is full
}

func (r *ring) add(p point) {
	if len(r.points) < samples {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % samples
}

// since lists the samples after a time, the oldest first: a history that was held up is longer than its hour.
func (r *ring) since(after time.Time) []wire.Sample {
	out := make([]wire.Sample, 0, len(r.points))
	for i := range r.points {
		if p := r.points[(r.next+i)%len(r.points)]; int64(p.at) > after.Unix() {
			out = append(out, p.sample())
		}
	}
	return out
}
