package usage

import (
	"strconv"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	wire "horcrux/pkg/usage"
)

// told is how old a look may be that metrics tell of, where looks are quick: an old one would be taken for what is.
const told = 2 * period

// metrics tell of the last look; a scrape makes none. What is unknown is left out. There are as many series as the node
// has machines, disks and network cards.
type metrics struct {
	*Sampler
	id string
}

// Collector of the node's metrics.
func (s *Sampler) Collector(node uuid.UUID) prometheus.Collector { return metrics{s, node.String()} }

// series is one metric of things of a kind.
type series[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	scale float64
	value func(T) *float64
}

func gauge[T any](name, help string, scale float64, value func(T) *float64, labels ...string) series[T] {
	return series[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.GaugeValue, scale, value}
}

func counter[T any](name, help string, value func(T) *float64, labels ...string) series[T] {
	return series[T]{prometheus.NewDesc(name, help, labels, nil), prometheus.CounterValue, 1, value}
}

// whole makes a number of a count.
func whole(n *int64) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}

func send[T any](c chan<- prometheus.Metric, all []series[T], of T, labels ...string) {
	for _, s := range all {
		if v := s.value(of); v != nil {
			c <- prometheus.MustNewConstMetric(s.desc, s.kind, *v*s.scale, labels...)
		}
	}
}

const mib = 1 << 20

var (
	lookedAt = prometheus.NewDesc("horcrux_usage_sampled_timestamp_seconds", "When what the node and its machines use was last seen.", []string{"node"}, nil)
	inState  = prometheus.NewDesc("horcrux_vm_state", "1 for the state that a virtual machine is in.", []string{"vm", "name", "state"}, nil)

	ofDomain = []series[*Domain]{
		counter("horcrux_vm_cpu_seconds_total", "CPU time of a virtual machine.", func(d *Domain) *float64 { return d.CPU.UsedS }, "vm", "name"),
		gauge("horcrux_vm_cpus", "CPUs of a virtual machine.", 1, func(d *Domain) *float64 { return whole(d.CPU.CPUs) }, "vm", "name"),
		gauge("horcrux_vm_memory_assigned_bytes", "What a virtual machine may have at most.", mib, func(d *Domain) *float64 { return whole(d.Memory.AssignedMB) }, "vm", "name"),
		gauge("horcrux_vm_memory_balloon_bytes", "What the balloon leaves the guest.", mib, func(d *Domain) *float64 { return whole(d.Memory.BalloonMB) }, "vm", "name"),
		gauge("horcrux_vm_memory_used_bytes", "What the guest says that it uses.", mib, func(d *Domain) *float64 { return whole(d.Memory.UsedMB) }, "vm", "name"),
		gauge("horcrux_vm_memory_available_bytes", "What the guest could give to programs.", mib, func(d *Domain) *float64 { return whole(d.Memory.AvailableMB) }, "vm", "name"),
		gauge("horcrux_vm_memory_resident_bytes", "What the hypervisor's process holds on the node.", mib, func(d *Domain) *float64 { return whole(d.Memory.RSSMB) }, "vm", "name"),
	}
	ofDisk = []series[wire.Disk]{
		counter("horcrux_vm_disk_read_bytes_total", "Bytes read from a disk.", func(d wire.Disk) *float64 { return whole(d.ReadBytes) }, "vm", "name", "disk"),
		counter("horcrux_vm_disk_write_bytes_total", "Bytes written to a disk.", func(d wire.Disk) *float64 { return whole(d.WriteBytes) }, "vm", "name", "disk"),
		counter("horcrux_vm_disk_read_ops_total", "Reads from a disk.", func(d wire.Disk) *float64 { return whole(d.ReadOps) }, "vm", "name", "disk"),
		counter("horcrux_vm_disk_write_ops_total", "Writes to a disk.", func(d wire.Disk) *float64 { return whole(d.WriteOps) }, "vm", "name", "disk"),
		gauge("horcrux_vm_disk_allocated_bytes", "What a disk takes on the node.", 1, func(d wire.Disk) *float64 { return whole(d.Allocated) }, "vm", "name", "disk"),
		gauge("horcrux_vm_disk_capacity_bytes", "What a disk offers the guest.", 1, func(d wire.Disk) *float64 { return whole(d.Capacity) }, "vm", "name", "disk"),
	}
	// The name of a card's end on the node is another with each start: its place in the machine makes better series.
	ofNIC = []series[wire.NIC]{
		counter("horcrux_vm_network_receive_bytes_total", "Bytes received by a network card.", func(n wire.NIC) *float64 { return whole(n.RxBytes) }, "vm", "name", "nic"),
		counter("horcrux_vm_network_transmit_bytes_total", "Bytes sent by a network card.", func(n wire.NIC) *float64 { return whole(n.TxBytes) }, "vm", "name", "nic"),
		counter("horcrux_vm_network_receive_packets_total", "Packets received by a network card.", func(n wire.NIC) *float64 { return whole(n.RxPackets) }, "vm", "name", "nic"),
		counter("horcrux_vm_network_transmit_packets_total", "Packets sent by a network card.", func(n wire.NIC) *float64 { return whole(n.TxPackets) }, "vm", "name", "nic"),
		counter("horcrux_vm_network_receive_drops_total", "Packets for a network card that were dropped.", func(n wire.NIC) *float64 { return whole(n.RxDrops) }, "vm", "name", "nic"),
		counter("horcrux_vm_network_transmit_drops_total", "Packets of a network card that were dropped.", func(n wire.NIC) *float64 { return whole(n.TxDrops) }, "vm", "name", "nic"),
	}
	ofNode = []series[wire.Node]{
		counter("horcrux_node_cpu_seconds_total", "CPU time of the node.", func(n wire.Node) *float64 { return n.CPU.UsedS }, "node"),
		gauge("horcrux_node_cpus", "CPUs of the node.", 1, func(n wire.Node) *float64 { return whole(n.CPU.CPUs) }, "node"),
		gauge("horcrux_node_memory_total_bytes", "Memory of the node.", mib, func(n wire.Node) *float64 { return whole(n.Memory.TotalMB) }, "node"),
		gauge("horcrux_node_memory_available_bytes", "Memory of the node that programs could have.", mib, func(n wire.Node) *float64 { return whole(n.Memory.AvailableMB) }, "node"),
		counter("horcrux_node_disk_read_bytes_total", "Bytes read from the node's disks.", func(n wire.Node) *float64 { return whole(n.Disk.ReadBytes) }, "node"),
		counter("horcrux_node_disk_write_bytes_total", "Bytes written to the node's disks.", func(n wire.Node) *float64 { return whole(n.Disk.WriteBytes) }, "node"),
		counter("horcrux_node_network_receive_bytes_total", "Bytes received by the node's network cards.", func(n wire.Node) *float64 { return whole(n.Network.RxBytes) }, "node"),
		counter("horcrux_node_network_transmit_bytes_total", "Bytes sent by the node's network cards.", func(n wire.Node) *float64 { return whole(n.Network.TxBytes) }, "node"),
	}
)

// Describe implements prometheus.Collector.
func (metrics) Describe(c chan<- *prometheus.Desc) {
	c <- lookedAt
	c <- inState
	describe(c, ofDomain)
	describe(c, ofDisk)
	describe(c, ofNIC)
	describe(c, ofNode)
}

func describe[T any](c chan<- *prometheus.Desc, all []series[T]) {
	for _, s := range all {
		c <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(c chan<- prometheus.Metric) {
	m.mu.Lock()
	l := m.last
	m.mu.Unlock()
	if l == nil {
		return
	}
	c <- prometheus.MustNewConstMetric(lookedAt, prometheus.GaugeValue, float64(l.at.UnixMilli())/1000, m.id)
	if m.clock().Sub(l.at) > told+l.took+l.pause() {
		return
	}
	send(c, ofNode, l.node, m.id)
	for _, id := range l.ids {
		d := l.domains[id]
		c <- prometheus.MustNewConstMetric(inState, prometheus.GaugeValue, 1, id.String(), d.Name, string(d.state()))
		send(c, ofDomain, d, id.String(), d.Name)
		for _, disk := range d.Disks {
			send(c, ofDisk, disk, id.String(), d.Name, disk.Name)
		}
		for i, nic := range d.NICs {
			send(c, ofNIC, nic, id.String(), d.Name, strconv.Itoa(i))
		}
	}
}
