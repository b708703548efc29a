//go:build !no_qemu

package libvirt

import (
	"context"
	"fmt"
	"strconv"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	telemetry "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/usage"
)

var _ usage.Driver = (*Driver)(nil)

// used are the groups of statistics that Usage asks for.
const used = golibvirt.DomainStatsState | golibvirt.DomainStatsCPUTotal | golibvirt.DomainStatsBalloon |
	golibvirt.DomainStatsVCPU | golibvirt.DomainStatsInterface | golibvirt.DomainStatsBlock

// Usage implements usage.Driver. An emulator that hangs holds up the call that meets it first; from then on the daemon
// knows it to be busy, and NOWAIT has it left out. That call stays under way on this connection, and may end it: a
// driver that also changes domains is better not asked.
func (d *Driver) Usage(ctx context.Context) ([]usage.Domain, error) {
	s, err := d.session(ctx)
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	all, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) ([]usage.Domain, error) {
		records, err := l.ConnectGetAllDomainStats(nil, uint32(used), uint32(golibvirt.ConnectGetAllDomainsStatsNowait))
		if err != nil {
			return nil, err
		}
		all := make([]usage.Domain, 0, len(records))
		for _, r := range records {
			ours, err := s.marks.of(l, uuid.UUID(r.Dom.UUID))
			if answers(err, hypervisor.ErrNotFound) {
				continue // undefined since
			}
			if err != nil {
				return nil, err
			}
			if !ours {
				continue
			}
			dom, err := usageOf(r)
			if err != nil {
				return nil, err
			}
			all = append(all, dom)
		}
		return all, nil
	})
	if err != nil {
		return nil, fmt.Errorf("usage: %w", err)
	}
	return all, nil
}

// usageOf reads what libvirt tells of a domain.
func usageOf(r golibvirt.DomainStatsRecord) (usage.Domain, error) {
	dom, err := domainOf(r)
	if err != nil {
		return usage.Domain{}, err
	}
	f := fields{}
	for _, p := range r.Params {
		f[p.Field] = p.Value.I
	}
	out := usage.Domain{
		ID: dom.ID, Name: dom.Name, State: dom.State, Run: int64(r.Dom.ID),
		CPU: telemetry.CPU{CPUs: f.count(golibvirt.DomainStatsVCPUCurrent)},
		Memory: telemetry.Memory{
			AssignedMB: f.mebibytes(golibvirt.DomainStatsBalloonMaximum),
			BalloonMB:  f.mebibytes(golibvirt.DomainStatsBalloonCurrent),
			RSSMB:      f.mebibytes(golibvirt.DomainStatsBalloonRss),
		},
	}
	active := dom.State == hypervisor.Running || dom.State == hypervisor.Paused
	if !active {
		out.Memory.BalloonMB, out.Memory.RSSMB = nil, nil // of a guest that is off it is the configuration again
	}
	if used := f.count(golibvirt.DomainStatsCPUTime); active && used != nil {
		s := time.Duration(*used).Seconds()
		out.CPU.UsedS = &s
	}
	if told := f.count(golibvirt.DomainStatsBalloonLastUpdate); active && told != nil && *told > 0 {
		out.Told = time.Unix(*told, 0)
		out.Memory.TotalMB = f.mebibytes(golibvirt.DomainStatsBalloonAvailable)
		out.Memory.AvailableMB = f.mebibytes(golibvirt.DomainStatsBalloonUsable)
		out.Memory.FreeMB = f.mebibytes(golibvirt.DomainStatsBalloonUnused)
	}
	for i := range f.items(golibvirt.DomainStatsBlockCount) {
		at := golibvirt.DomainStatsBlockPrefix + strconv.Itoa(i)
		out.Disks = append(out.Disks, telemetry.Disk{
			Name:      f.text(at + golibvirt.DomainStatsBlockSuffixName),
			ReadBytes: f.count(at + golibvirt.DomainStatsBlockSuffixRdBytes), WriteBytes: f.count(at + golibvirt.DomainStatsBlockSuffixWrBytes),
			ReadOps: f.count(at + golibvirt.DomainStatsBlockSuffixRdReqs), WriteOps: f.count(at + golibvirt.DomainStatsBlockSuffixWrReqs),
			// "allocation" is, of a running guest, how far it has written since its start.
			Allocated: f.count(at + golibvirt.DomainStatsBlockSuffixPhysical), Capacity: f.count(at + golibvirt.DomainStatsBlockSuffixCapacity),
		})
	}
	for i := range f.items(golibvirt.DomainStatsNetCount) {
		at := golibvirt.DomainStatsNetPrefix + strconv.Itoa(i)
		out.NICs = append(out.NICs, telemetry.NIC{
			Name:    f.text(at + golibvirt.DomainStatsNetSuffixName),
			RxBytes: f.count(at + golibvirt.DomainStatsNetSuffixRxBytes), TxBytes: f.count(at + golibvirt.DomainStatsNetSuffixTxBytes),
			RxPackets: f.count(at + golibvirt.DomainStatsNetSuffixRxPkts), TxPackets: f.count(at + golibvirt.DomainStatsNetSuffixTxPkts),
			RxErrors: f.count(at + golibvirt.DomainStatsNetSuffixRxErrs), TxErrors: f.count(at + golibvirt.DomainStatsNetSuffixTxErrs),
			RxDrops: f.count(at + golibvirt.DomainStatsNetSuffixRxDrop), TxDrops: f.count(at + golibvirt.DomainStatsNetSuffixTxDrop),
		})
	}
	return out, nil
}

// fields are libvirt's typed parameters by name.
type fields map[string]any

// count is a number, nil where libvirt does not tell it or it is too large to be one.
func (f fields) count(name string) *int64 {
	var n int64
	switch v := f[name].(type) {
	case int32:
		n = int64(v)
	case uint32:
		n = int64(v)
	case int64:
		n = v
	case uint64:
		n = int64(v) //nolint:gosec // what is too large becomes negative
	default:
		return nil
	}
	if n < 0 {
		return nil
	}
	return &n
}

// mebibytes of a number of KiB.
func (f fields) mebibytes(name string) *int64 {
	n := f.count(name)
	if n == nil {
		return nil
	}
	*n >>= 10
	return n
}

// items is how many things of a kind there are; a daemon that says more than any domain has is not believed.
func (f fields) items(name string) int {
	n := f.count(name)
	if n == nil || *n > 1<<12 {
		return 0
	}
	return int(*n)
}

func (f fields) text(name string) string {
	s, _ := f[name].(string)
	return s
}
