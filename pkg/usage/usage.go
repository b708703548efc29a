// Package usage is the language in which a node tells what its guests and itself use. It is telemetry: it is asked for
// over core NATS, kept for an hour in memory, and never recorded. What is not known is nil, never 0.
package usage

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
)

// Methods that the compute service of a node answers (events.RPCSubject). Each takes a Question.
const (
	VMMethod          = "stats_vm"         // a VM; not_found when the hypervisor knows none
	VMHistoryMethod   = "stats_vm_history" // a History
	NodeMethod        = "stats"            // a Page
	NodeHistoryMethod = "stats_history"    // a History
)

// Question of one of the methods.
type Question struct {
	VM    uuid.UUID `json:"vm,omitzero"`
	After uuid.UUID `json:"after,omitzero"` // the next of the page before
}

// VM is what a virtual machine uses. Counters begin with each start of the guest. A rate is the mean since the sample
// before; it is nil while there is only one sample, and after a counter went back.
type VM struct {
	ID     uuid.UUID `json:"id"`
	Name   string    `json:"name"`
	Node   uuid.UUID `json:"node"`
	State  vm.State  `json:"state"`
	At     time.Time `json:"at"`
	CPU    CPU       `json:"cpu"`
	Memory Memory    `json:"memory"`
	Disks  []Disk    `json:"disks"`
	NICs   []NIC     `json:"networks"`
}

// CPU time that was used, of all CPUs together.
type CPU struct {
	UsedS   *float64 `json:"used_s"`
	Percent *float64 `json:"percent"` // 100: all CPUs are busy
	CPUs    *int64   `json:"cpus"`
}

// Memory of a guest, in MiB. What the guest says is known where its balloon driver says it.
type Memory struct {
	AssignedMB  *int64 `json:"assigned_mb"`  // what it may have at most
	BalloonMB   *int64 `json:"balloon_mb"`   // what the balloon leaves it
	TotalMB     *int64 `json:"total_mb"`     // what the guest says that it has
	UsedMB      *int64 `json:"used_mb"`      // total without available
	AvailableMB *int64 `json:"available_mb"` // what the guest could give to programs without swapping
	FreeMB      *int64 `json:"free_mb"`      // what the guest uses for nothing, not even caches
	RSSMB       *int64 `json:"rss_mb"`       // of the hypervisor's process on the node
}

// Disk of a guest.
type Disk struct {
	Name           string   `json:"name"` // what the hypervisor calls it: vda
	ReadBytes      *int64   `json:"read_bytes"`
	WriteBytes     *int64   `json:"write_bytes"`
	ReadOps        *int64   `json:"read_ops"`
	WriteOps       *int64   `json:"write_ops"`
	ReadBytesRate  *float64 `json:"read_bytes_per_s"`
	WriteBytesRate *float64 `json:"write_bytes_per_s"`
	ReadOpsRate    *float64 `json:"read_ops_per_s"`
	WriteOpsRate   *float64 `json:"write_ops_per_s"`
	Allocated      *int64   `json:"allocated_bytes"` // of what holds it on the node, the length of a sparse file
	Capacity       *int64   `json:"capacity_bytes"`  // for the guest
}

// NIC of a guest; received and sent as the guest sees it.
type NIC struct {
	Name          string   `json:"name"` // of the node's end: vnet3; empty while there is none
	RxBytes       *int64   `json:"rx_bytes"`
	TxBytes       *int64   `json:"tx_bytes"`
	RxPackets     *int64   `json:"rx_packets"`
	TxPackets     *int64   `json:"tx_packets"`
	RxErrors      *int64   `json:"rx_errors"`
	TxErrors      *int64   `json:"tx_errors"`
	RxDrops       *int64   `json:"rx_drops"`
	TxDrops       *int64   `json:"tx_drops"`
	RxBytesRate   *float64 `json:"rx_bytes_per_s"`
	TxBytesRate   *float64 `json:"tx_bytes_per_s"`
	RxPacketsRate *float64 `json:"rx_packets_per_s"`
	TxPacketsRate *float64 `json:"tx_packets_per_s"`
}

// Node is what a node as a whole uses, whatever runs there.
type Node struct {
	ID      uuid.UUID   `json:"id"`
	Name    string      `json:"name"`
	At      time.Time   `json:"at"`
	CPU     CPU         `json:"cpu"`
	Memory  NodeMemory  `json:"memory"`
	Disk    NodeDisk    `json:"disk"`
	Network NodeNetwork `json:"network"`
}

// NodeMemory in MiB.
type NodeMemory struct {
	TotalMB     *int64 `json:"total_mb"`
	UsedMB      *int64 `json:"used_mb"` // total without available
	AvailableMB *int64 `json:"available_mb"`
}

// NodeDisk is all of the node's own disks together.
type NodeDisk struct {
	ReadBytes      *int64   `json:"read_bytes"`
	WriteBytes     *int64   `json:"write_bytes"`
	ReadBytesRate  *float64 `json:"read_bytes_per_s"`
	WriteBytesRate *float64 `json:"write_bytes_per_s"`
}

// NodeNetwork is all of the node's own network cards together.
type NodeNetwork struct {
	RxBytes     *int64   `json:"rx_bytes"`
	TxBytes     *int64   `json:"tx_bytes"`
	RxBytesRate *float64 `json:"rx_bytes_per_s"`
	TxBytesRate *float64 `json:"tx_bytes_per_s"`
}

// Page is a node and some of its machines, each a VM as JSON, in the order of their ids.
type Page struct {
	Node Node              `json:"node"`
	VMs  []json.RawMessage `json:"vms"`
	Next *uuid.UUID        `json:"next"` // to ask after for more; nil after the last
}

// All is what the installation uses.
type All struct {
	Nodes   []Node            `json:"nodes"`
	VMs     []json.RawMessage `json:"vms"`
	Missing []Missing         `json:"missing"` // nodes that did not answer: neither they nor their machines are shown
}

// Missing is a node that did not answer.
type Missing struct {
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// History is the last hour, the oldest sample first.
type History struct {
	ID      uuid.UUID `json:"id"`
	PeriodS int       `json:"period_s"` // how far samples are apart
	Items   []Sample  `json:"items"`
}

// Sample is one moment of a history. The rates are means over the period before it, of all disks and NICs together.
type Sample struct {
	At            time.Time `json:"at"`
	CPUPercent    *float64  `json:"cpu_percent"`
	MemoryUsedMB  *int64    `json:"memory_used_mb"`
	MemoryRSSMB   *int64    `json:"memory_rss_mb"` // of a virtual machine
	DiskReadRate  *float64  `json:"disk_read_bytes_per_s"`
	DiskWriteRate *float64  `json:"disk_write_bytes_per_s"`
	NetworkRxRate *float64  `json:"network_rx_bytes_per_s"`
	NetworkTxRate *float64  `json:"network_tx_bytes_per_s"`
}

// Period is how far the samples of a history are apart.
const Period = 10 * time.Second

// NoHistory is that of what was never seen.
func NoHistory(id uuid.UUID) History {
	return History{ID: id, PeriodS: int(Period / time.Second), Items: []Sample{}}
}
