package fake

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	wire "horcrux/pkg/usage"
	"horcrux/services/compute/usage"
)

var _ usage.Driver = (*Driver)(nil)

// born is when the clocks of all guests began.
var born = time.Now()

// Usage implements usage.Driver. A fake guest is half busy, paused or not, reads 1 MB and sends 1 kB a second, and has no balloon
// driver; its first disk is vda, its first card nic0.
func (d *Driver) Usage(ctx context.Context) (out []usage.Domain, err error) {
	err = d.do(ctx, "Usage", uuid.Nil, false, func() error {
		for id, dom := range d.h.domains {
			if dom.managed {
				out = append(out, dom.usage(id, d.h.effects[id]))
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (d *domain) usage(id uuid.UUID, e *Effects) usage.Domain {
	cpus, memory := int64(d.spec.CPUs), d.spec.MemoryMB
	u := usage.Domain{ID: id, Name: d.spec.Name, State: d.state, Run: -1, CPU: wire.CPU{CPUs: &cpus}, Memory: wire.Memory{AssignedMB: &memory}}
	for i := range d.spec.Disks {
		u.Disks = append(u.Disks, wire.Disk{Name: fmt.Sprintf("vd%c", 'a'+i)})
	}
	if !d.active() {
		return u
	}
	for i := range d.spec.NICs {
		u.NICs = append(u.NICs, wire.NIC{Name: fmt.Sprintf("nic%d", i)})
	}
	if e != nil {
		u.Run = int64(e.Started)
	}
	lived := time.Since(born)
	count := func(perSecond float64) *int64 {
		n := int64(lived.Seconds() * perSecond)
		return &n
	}
	busy := lived.Seconds() * float64(cpus) / 2
	balloon := memory
	u.CPU.UsedS, u.Memory.BalloonMB, u.Memory.RSSMB = &busy, &balloon, &balloon
	for i := range u.Disks {
		n := &u.Disks[i]
		n.ReadBytes, n.WriteBytes, n.ReadOps, n.WriteOps = count(1e6), count(0), count(1e6/4096), count(0)
	}
	for i := range u.NICs {
		n := &u.NICs[i]
		n.RxBytes, n.TxBytes, n.RxPackets, n.TxPackets = count(0), count(1000), count(0), count(1)
		n.RxErrors, n.TxErrors, n.RxDrops, n.TxDrops = count(0), count(0), count(0), count(0)
	}
	return u
}
