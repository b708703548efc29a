package vm

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// UpdateData is the data of vm.update: nil leaves a value as it is. Disks and Networks change those that they name.
type UpdateData struct {
	Description *string      `json:"description,omitempty"`
	Tags        *[]string    `json:"tags,omitempty"`
	CPUs        *int         `json:"cpus,omitempty"`
	MaxCPUs     *int         `json:"max_cpus,omitempty"`
	MemoryMB    *int64       `json:"memory_mb,omitempty"`
	CPUModel    *string      `json:"cpu_model,omitempty"`
	Machine     *string      `json:"machine,omitempty"`
	Firmware    *string      `json:"firmware,omitempty"`
	SecureBoot  *bool        `json:"secure_boot,omitempty"`
	TPM         *bool        `json:"tpm,omitempty"`
	Boot        *Boot        `json:"boot,omitempty"`
	Serial      *bool        `json:"serial,omitempty"`
	VNC         *VNCUpdate   `json:"vnc,omitempty"`
	Agent       *bool        `json:"agent,omitempty"`
	RNG         *bool        `json:"rng,omitempty"`
	Disks       []DiskUpdate `json:"disks,omitempty"`
	Networks    []NICUpdate  `json:"networks,omitempty"`
	Autostart   *bool        `json:"autostart,omitempty"`
	OnDrift     *string      `json:"on_drift,omitempty"`
}

// DiskUpdate changes the disk of its name. A boot order of 0 takes it out of the order.
type DiskUpdate struct {
	Name      string    `json:"name"`
	Bus       *string   `json:"bus,omitempty"`
	BootOrder *int      `json:"boot_order,omitempty"`
	Cache     *string   `json:"cache,omitempty"`
	Discard   *string   `json:"discard,omitempty"`
	Limits    *IOLimits `json:"limits,omitempty"`
}

// NICUpdate changes the NIC of its name. A boot order or MTU of 0 takes it away.
type NICUpdate struct {
	Name      string  `json:"name"`
	Network   *string `json:"network,omitempty"`
	Model     *string `json:"model,omitempty"`
	MAC       *string `json:"mac,omitempty"`
	MTU       *int    `json:"mtu,omitempty"`
	Link      *string `json:"link,omitempty"`
	BootOrder *int    `json:"boot_order,omitempty"`
}

// VNCUpdate changes the screen. The nil id takes the password away.
type VNCUpdate struct {
	Enabled  *bool      `json:"enabled,omitempty"`
	Password *uuid.UUID `json:"password_ref,omitempty"`
}

// AttachDiskData is the data of vm.attach_disk; the name and the volume are given when it is accepted.
type AttachDiskData struct {
	Disk Disk `json:"disk"`
}

// DetachDiskData is the data of vm.detach_disk.
type DetachDiskData struct {
	Name string `json:"name"`
	Keep bool   `json:"keep"` // the volume
}

// ResizeDiskData is the data of vm.resize_disk.
type ResizeDiskData struct {
	Name   string `json:"name"`
	SizeGB int64  `json:"size_gb"` // GiB
}

// AttachNICData is the data of vm.attach_network; the name is given when it is accepted.
type AttachNICData struct {
	NIC NIC `json:"nic"`
}

// DetachNICData is the data of vm.detach_network.
type DetachNICData struct {
	Name string `json:"name"`
}

// UpdateRequested is the intent to bring a changed configuration to the hypervisor.
type UpdateRequested struct {
	events.Intent
	Change
}

// Updated says that a change of the configuration holds.
type Updated struct{ Change }

// Change of a configuration.
type Change struct {
	// Changed are the fields that hold now, for a running guest too.
	Changed Fields `json:"changed,omitempty"`
	// Pending are all fields that wait for the guest's next start.
	Pending Fields `json:"pending,omitempty"`
	// Sources are those of disks that came, by their names.
	Sources map[string]Source `json:"sources,omitempty"`
}

// UpdateFailed says that the hypervisor did not take the change; the configuration is what it was.
type UpdateFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// DiskChangeRequested is the accepted attach, detach or resize of a disk, which takes several steps.
type DiskChangeRequested struct {
	Operation uuid.UUID `json:"operation"`
	Attach    *Disk     `json:"attach,omitempty"`
	Detach    string    `json:"detach,omitempty"`
	Keep      bool      `json:"keep,omitempty"` // the volume of what is detached
	Resize    string    `json:"resize,omitempty"`
	SizeGB    int64     `json:"size_gb,omitempty"` // of what is resized
	// Running says that the guest ran when this was accepted.
	Running bool `json:"running,omitempty"`
}

// DiskChangeEnded ends it; the configuration tells what came of it.
type DiskChangeEnded struct {
	Problem *problem.Problem `json:"problem,omitempty"`
}
