package vm

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/google/uuid"
)

// Spec is the configuration of a virtual machine, with every default filled in. Its fields are those of the view.
type Spec struct {
	Name        string   `json:"name"`
	Backend     string   `json:"backend"` // qemu
	Description string   `json:"description"`
	Tags        []string `json:"tags"`
	CPUs        int      `json:"cpus"`
	MaxCPUs     int      `json:"max_cpus"`  // up to which CPUs can be added while the guest runs
	MemoryMB    int64    `json:"memory_mb"` // MiB
	CPUModel    string   `json:"cpu_model"`
	Machine     string   `json:"machine"`
	Firmware    string   `json:"firmware"` // bios or uefi
	SecureBoot  bool     `json:"secure_boot"`
	TPM         bool     `json:"tpm"`
	Disks       []Disk   `json:"disks"`
	Networks    []NIC    `json:"networks"`
	Boot        Boot     `json:"boot"`
	Serial      bool     `json:"serial"` // a serial console
	VNC         VNC      `json:"vnc"`
	Agent       bool     `json:"agent"` // a channel for the guest agent
	RNG         bool     `json:"rng"`   // random numbers of the host
	Autostart   bool     `json:"autostart"`
	OnDrift     string   `json:"on_drift"`          // record or repair
	Adopted     bool     `json:"adopted,omitempty"` // made by others
}

// Disk of a virtual machine. The volume's fields are filled in when the disk is accepted.
type Disk struct {
	// Name is disk0, disk1, …, for as long as the disk is there; that of a disk which others made is what they call it.
	Name       string    `json:"name"`
	Pool       string    `json:"pool"`
	SizeGB     int64     `json:"size_gb"` // GiB
	Format     string    `json:"format"`  // raw or qcow2
	Image      *string   `json:"image"`
	Bus        string    `json:"bus"` // virtio, scsi, sata
	BootOrder  *int      `json:"boot_order"`
	Cache      string    `json:"cache"`   // default, none, writeback, writethrough, directsync, unsafe
	Discard    string    `json:"discard"` // unmap, ignore
	Limits     IOLimits  `json:"limits"`
	PoolID     uuid.UUID `json:"pool_id,omitzero"`
	VolumeID   uuid.UUID `json:"volume_id,omitzero"`
	VolumeName string    `json:"volume,omitempty"`
}

// IOLimits are what a guest may do to a disk in a second; 0 sets no limit.
type IOLimits struct {
	ReadIOPS  int64 `json:"read_iops"`
	WriteIOPS int64 `json:"write_iops"`
	ReadMB    int64 `json:"read_mb_s"` // MiB
	WriteMB   int64 `json:"write_mb_s"`
}

// NIC of a virtual machine.
type NIC struct {
	Name      string  `json:"name"` // nic0, nic1, …; for as long as the NIC is there
	Network   string  `json:"network"`
	Model     string  `json:"model"` // virtio, e1000
	MAC       *string `json:"mac"`   // nil in machines made before addresses were recorded: derived from the id
	MTU       *int    `json:"mtu"`   // bytes; nil: the network's
	Link      string  `json:"link"`  // up or down
	BootOrder *int    `json:"boot_order"`
}

// Boot says what a virtual machine starts from besides its disks. Paths are absolute on the node.
type Boot struct {
	Kernel  *string `json:"kernel"`
	Initrd  *string `json:"initrd"`
	Cmdline *string `json:"cmdline"`
	ISO     *string `json:"iso"`
}

// VNC is the guest's screen. Password names a sealed secret; nil asks for none.
type VNC struct {
	Enabled  bool       `json:"enabled"`
	Password *uuid.UUID `json:"password_ref"`
}

// The states of a NIC's link.
const (
	LinkUp   = "up"
	LinkDown = "down"
)

// Fields are values of a configuration by the name that they have in JSON.
type Fields map[string]json.RawMessage

// Overlay is v with some of its fields replaced. Nothing of the result is shared with v.
func Overlay[T any](v T, fields Fields) (T, error) {
	var out T
	all, err := fieldsOf(v)
	if err != nil {
		return out, err
	}
	maps.Copy(all, fields)
	doc, err := json.Marshal(all)
	if err == nil {
		err = json.Unmarshal(doc, &out)
	}
	if err != nil {
		return out, fmt.Errorf("fields of a virtual machine: %w", err)
	}
	return out, nil
}

// Diff are the fields in which b is not as a, with the values of b; nil if there are none.
func Diff(a, b Spec) (Fields, error) {
	before, err := fieldsOf(a)
	if err != nil {
		return nil, err
	}
	after, err := fieldsOf(b)
	if err != nil {
		return nil, err
	}
	maps.DeleteFunc(after, func(name string, value json.RawMessage) bool { return string(before[name]) == string(value) })
	if len(after) == 0 {
		return nil, nil
	}
	return after, nil
}

func fieldsOf(v any) (Fields, error) {
	doc, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("fields of a virtual machine: %w", err)
	}
	var all Fields
	if err := json.Unmarshal(doc, &all); err != nil {
		return nil, fmt.Errorf("fields of a virtual machine: %w", err)
	}
	return all, nil
}

// DerivedMAC is a locally administered address that always follows from the same id and name. 40 bits of it are
// derived: among 100,000 NICs two alike are a matter of 1 in 200.
func DerivedMAC(id uuid.UUID, name string) string {
	sum := sha256.Sum256([]byte("mac " + id.String() + " " + name))
	return fmt.Sprintf("52:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4])
}
