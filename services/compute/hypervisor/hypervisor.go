// Package hypervisor is what the compute service asks of a hypervisor. The implementations are below it; the suite
// that all of them pass is drivertest/.
package hypervisor

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
)

// Every failure of a driver is one of these, wrapped with what the hypervisor said (which is for logs, never for
// users).
var (
	ErrNotFound      = errors.New("not found")
	ErrAlreadyExists = errors.New("already exists")
	ErrConflict      = errors.New("conflict")    // not possible in this state
	ErrBusy          = errors.New("busy")        // try again later
	ErrInvalid       = errors.New("invalid")     // the hypervisor refuses the configuration
	ErrUnsupported   = errors.New("unsupported") // this hypervisor cannot do it
	ErrUnavailable   = errors.New("unavailable") // the daemon does not answer
	ErrExhausted     = errors.New("exhausted")   // memory, disk or another resource of the node is used up
	ErrPermission    = errors.New("permission denied")
	ErrRefused       = errors.New("refused by the guest") // it was asked, and did not
	ErrUnknown       = errors.New("outcome unknown")      // a call timed out or broke off: look before acting again
)

// State of a domain as the hypervisor reports it.
type State string

// The states.
const (
	Off     State = "off"
	Running State = "running"
	Paused  State = "paused"
	Crashed State = "crashed"
)

// Disk of a domain. Path exists on the node.
type Disk struct {
	// Index tells a domain's disks apart, for as long as it has them: what the guest calls the disk follows from it.
	Index     int
	Target    string // what the hypervisor calls a disk that others made; "": it follows from Index
	Type      string // file or block
	Path      string
	Format    string // raw or qcow2
	SizeBytes int64  // what the guest sees; 0: what the storage says
	Bus       string // virtio, scsi, sata
	BootOrder int    // 0: not booted from
	Cache     string // default, none, writeback, writethrough, directsync, unsafe
	Discard   string // unmap or ignore
	Limits    Limits
}

// Limits of a disk's traffic a second; 0 sets none.
type Limits struct {
	ReadIOPS, WriteIOPS   int64
	ReadBytes, WriteBytes int64
}

// NIC of a domain.
type NIC struct {
	Network   string
	Model     string
	MAC       string // "" lets the driver derive one from the domain's id and the index, always the same
	MTU       int    // bytes; 0: the network's
	LinkDown  bool
	BootOrder int // 0: not booted from
}

// Spec is a domain to define. Its id is the domain's UUID.
type Spec struct {
	ID          uuid.UUID
	Name        string
	Description string
	CPUs        int
	MaxCPUs     int   // up to which CPUs can be added while it runs; 0: CPUs
	MemoryMB    int64 // MiB; 0 lets Adjust leave the balloon alone
	CPUModel    string
	Machine     string
	Firmware    string // bios or uefi
	SecureBoot  bool
	TPM         bool
	Accelerator Accelerator
	Disks       []Disk
	NICs        []NIC
	Kernel      string // absolute paths, "" for none
	Initrd      string
	Cmdline     string
	ISO         string
	Serial      bool // a serial console
	VNC         bool // a screen, on a Unix socket of the node
	VNCPassword string
	Agent       bool // a channel for the guest agent
	RNG         bool // random numbers of the host
	Autostart   bool
	// Adopted says that the domain was made by others: Configure changes only what it must.
	Adopted bool
	// Gone are devices that Configure and Adjust take away. What else is there and not in the spec stays: it may be what
	// somebody brought a moment ago.
	Gone Devices
}

// Devices of a domain.
type Devices struct {
	Disks []Disk
	NICs  []NIC
}

// Accelerator is how guest code runs.
type Accelerator string

// The accelerators.
const (
	KVM Accelerator = "kvm"
	TCG Accelerator = "tcg"
)

// Domain is what the hypervisor knows of a guest.
type Domain struct {
	ID        uuid.UUID
	Name      string
	NativeID  string // what the hypervisor's own tools call it
	State     State
	Autostart bool
	// Reason is why an off domain is off, as far as the hypervisor knows: "shutdown" by its guest, "destroyed", "crashed", or "".
	Reason string
	// Managed says that the domain carries our mark.
	Managed bool
}

// Snapshot of a domain. Name tells it apart from the domain's others.
type Snapshot struct {
	Name        string
	Description string
	Memory      bool   // of the guest, which it then continues with
	Parent      string // observed: the snapshot that the domain was at or had gone on from, "" for none
	State       State  // observed: of the domain when it was taken
}

// Description is what the hypervisor has of a domain, in the terms of a spec. What a spec has no words for is left out;
// Accelerator and the names of devices are not told.
type Description struct {
	Domain
	Running *Spec // nil when nothing runs
	Next    Spec  // what the next start has
	// Transient says that it runs and is forgotten once it stops.
	Transient bool
	// Version changes whenever the domain's document does.
	Version uint64
}

// Change says that a domain is not as it was. It carries what was observed, not what somebody did.
type Change struct {
	ID    uuid.UUID
	State State  // "" when the domain is gone
	Cause string // "destroyed", "shutdown", "crashed", "started", "undefined", …
	At    time.Time
}

// Info describes a reachable hypervisor.
type Info struct {
	Name         string // "qemu"
	Version      string
	CPUs         int
	MemoryMB     int64
	MaxCPUs      int // of one guest
	Accelerators []Accelerator
}

// Driver drives one hypervisor on one node. All methods may be called at the same time by many goroutines, answer
// within the context's deadline, and fail only with the errors above or the context's.
//
// A mutation that was cut off (ErrUnknown, ErrUnavailable, a deadline) may or may not have happened. Every mutation
// can be repeated: what already holds is success.
type Driver interface {
	// Info fails with ErrUnavailable while the hypervisor does not answer.
	Info(ctx context.Context) (Info, error)
	// Networks are the names that NIC.Network may have: networks that a guest can be on now.
	Networks(ctx context.Context) ([]string, error)

	// Define makes the domain known, off, under Spec.ID. A domain of the same id is replaced when it is off and
	// carries our mark; ErrAlreadyExists when another domain has the name, ErrInvalid when the hypervisor refuses.
	Define(ctx context.Context, spec Spec) (Domain, error)
	// Undefine forgets an off domain with all that the hypervisor keeps for it, disks aside. A domain that does not
	// exist is success; ErrConflict when it runs.
	Undefine(ctx context.Context, id uuid.UUID) error

	// Start runs an off domain; a running one is success. ErrNotFound.
	Start(ctx context.Context, id uuid.UUID) error
	// Destroy ends a domain by force; an off one is success. ErrNotFound.
	Destroy(ctx context.Context, id uuid.UUID) error
	// Shutdown asks the guest to power off and does not wait. ErrConflict when it does not run; ErrNotFound.
	Shutdown(ctx context.Context, id uuid.UUID) error
	// Pause holds a running domain's CPUs; a paused one is success. ErrConflict when it is off; ErrNotFound.
	Pause(ctx context.Context, id uuid.UUID) error
	// Resume lets a paused domain go on; a running one is success. ErrConflict when it is off; ErrNotFound.
	Resume(ctx context.Context, id uuid.UUID) error
	// Reset does to a running domain what its reset button would. Alone among the mutations it leaves nothing by which it
	// would be recognised: repeated, it happens again. ErrConflict when it is off; ErrNotFound.
	Reset(ctx context.Context, id uuid.UUID) error
	// Reboot asks the guest to boot again and does not wait. Repeated, it is asked again. ErrConflict when it does not
	// run; ErrNotFound.
	Reboot(ctx context.Context, id uuid.UUID) error

	// Configure gives a domain of ours the configuration that its next start has, whether it runs or not. What it has
	// beyond a spec stays, and so do the addresses of the devices that stay. ErrNotFound; ErrInvalid when the hypervisor
	// refuses.
	Configure(ctx context.Context, spec Spec) error
	// Adjust gives a running domain what it can have of a configuration at once: more CPUs, as much memory as its
	// balloon leaves it, disks and NICs that come, and those in Gone that go, links, limits and sizes of disks, another password for its
	// screen. A domain that is off needs nothing. ErrNotFound; ErrInvalid when the hypervisor refuses; ErrRefused when
	// the guest does not let go of a device.
	Adjust(ctx context.Context, spec Spec) error

	// Snapshot keeps a domain's disks as they are, of one that runs or is paused with its memory; it goes on as it was. A
	// snapshot of the name is success. ErrConflict for the memory of a domain that is off, ErrUnsupported for one that is
	// active without it, ErrInvalid when the hypervisor refuses the domain or its disks; ErrNotFound.
	Snapshot(ctx context.Context, id uuid.UUID, snap Snapshot) error
	// RestoreSnapshot brings a domain back: its disks, its configuration, and where the snapshot has memory the guest,
	// running or paused as it was; without, the domain is off. Nothing tells whether that was done: repeated, it happens
	// again. ErrConflict when it is active and the snapshot has no memory; ErrNotFound.
	RestoreSnapshot(ctx context.Context, id uuid.UUID, name string) error
	// DeleteSnapshot gives one up; those after it go on from the one before it. One that is not there is success.
	// ErrNotFound when there is no domain.
	DeleteSnapshot(ctx context.Context, id uuid.UUID, name string) error
	// Snapshots are those of a domain, by name. ErrNotFound.
	Snapshots(ctx context.Context, id uuid.UUID) ([]Snapshot, error)

	// SetAutostart says whether the domain starts with the hypervisor. ErrNotFound.
	SetAutostart(ctx context.Context, id uuid.UUID, on bool) error
	// SetDescription changes what the hypervisor's own tools show. ErrNotFound.
	SetDescription(ctx context.Context, id uuid.UUID, text string) error

	// Adopt puts our mark on a domain and leaves it alone otherwise; one that has it is success. ErrNotFound.
	Adopt(ctx context.Context, id uuid.UUID) error
	// Describe observes the configuration of a domain. Asked with the version that was seen last, it answers with that
	// version alone where nothing has changed. What is neither in a document nor told by an event, an autostart flag, it may
	// then take some seconds to see. ErrNotFound.
	Describe(ctx context.Context, id uuid.UUID, seen uint64) (Description, error)

	// Domain observes one. ErrNotFound.
	Domain(ctx context.Context, id uuid.UUID) (Domain, error)
	// Domains observes all, those without our mark too, in one call to the hypervisor for all.
	Domains(ctx context.Context) ([]Domain, error)
	// Watch sends changes until ctx ends or the connection breaks, then closes the channel. Changes may be merged but
	// the last one of a domain is never lost while the channel is open. Whoever watches observes all domains after
	// Watch returned.
	Watch(ctx context.Context) (<-chan Change, error)

	// Close ends the driver. Calls under way fail with ErrUnavailable.
	Close() error
}
