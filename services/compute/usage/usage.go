// Package usage knows what the guests of a node and the node itself use: it looks every few seconds, makes rates of
// counters, keeps the last hour, and answers from a look that is fresh, or recent where looks are slow.
package usage

import (
	"context"
	"time"

	"github.com/google/uuid"

	wire "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
)

// Domain is what the hypervisor tells of what a guest uses. Rates are nil, and so is what the hypervisor does not know:
// of a guest that is off that is nearly everything, of one whose emulator hangs what the emulator would have to say.
type Domain struct {
	ID     uuid.UUID
	Name   string
	State  hypervisor.State
	Run    int64 // another at each start of the guest, with which its counters begin
	CPU    wire.CPU
	Memory wire.Memory
	// Told is when the guest last told of its memory; zero if it never did.
	Told  time.Time
	Disks []wire.Disk
	NICs  []wire.NIC
}

// Driver tells what guests use.
type Driver interface {
	// Usage observes every domain that carries our mark, in one call to the hypervisor for all. A guest whose emulator
	// hangs does not keep it from telling of the others: at worst the first call afterwards is late, while the next is
	// not. It fails as the methods of a hypervisor.Driver do.
	Usage(ctx context.Context) ([]Domain, error)
}

// toldFor is how long what a guest told of its memory holds.
const toldFor = time.Minute

// settle takes back what a guest told too long ago, and says what follows from the rest.
func (d *Domain) settle(now time.Time) {
	m := &d.Memory
	if now.Sub(d.Told) > toldFor {
		m.TotalMB, m.AvailableMB, m.FreeMB = nil, nil, nil
	}
	m.UsedMB = minus(m.TotalMB, m.AvailableMB)
}

func minus(a, b *int64) *int64 {
	if a == nil || b == nil {
		return nil
	}
	d := *a - *b
	return &d
}
