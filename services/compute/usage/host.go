package usage

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	wire "horcrux/pkg/usage"
)

// Host reads what the node uses from its kernel, below a root: "/" but in tests. What cannot be read is nil.
type Host string

// ticks of /proc/stat in a second; Linux shows every program 100.
const ticks = 100

const (
	kib    = 1 << 10
	sector = 512 // of /proc/diskstats, whatever the disk's own are
)

// Usage of the node. Its counters begin with the start of the node.
func (h Host) Usage(at time.Time) wire.Node {
	n := wire.Node{At: at}
	n.CPU = h.cpu()
	n.Memory = h.memory()
	for _, f := range h.lines("proc/diskstats") {
		// Partitions and what is made of files or other disks would count twice.
		if len(f) < 10 || !h.exists("sys/block", f[2], "device") {
			continue
		}
		add(&n.Disk.ReadBytes, f[5], sector)
		add(&n.Disk.WriteBytes, f[9], sector)
	}
	for _, f := range h.lines("proc/net/dev") {
		if len(f) < 10 || !h.exists("sys/class/net", strings.TrimSuffix(f[0], ":"), "device") {
			continue
		}
		add(&n.Network.RxBytes, f[1], 1)
		add(&n.Network.TxBytes, f[9], 1)
	}
	return n
}

func (h Host) cpu() (c wire.CPU) {
	for _, f := range h.lines("proc/stat") {
		switch {
		case f[0] == "cpu" && len(f) > 8:
			// user nice system idle iowait irq softirq steal; guests are part of user.
			var used int64
			for _, i := range []int{1, 2, 3, 6, 7, 8} {
				n, err := strconv.ParseInt(f[i], 10, 64)
				if err != nil {
					return wire.CPU{}
				}
				used += n
			}
			s := float64(used) / ticks
			c.UsedS = &s
		case strings.HasPrefix(f[0], "cpu"):
			add(&c.CPUs, "1", 1)
		}
	}
	return c
}

func (h Host) memory() (m wire.NodeMemory) {
	for _, f := range h.lines("proc/meminfo") {
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			add(&m.TotalMB, f[1], 1)
		case "MemAvailable:":
			add(&m.AvailableMB, f[1], 1)
		}
	}
	for _, v := range []*int64{m.TotalMB, m.AvailableMB} {
		if v != nil {
			*v /= kib
		}
	}
	m.UsedMB = minus(m.TotalMB, m.AvailableMB)
	return m
}

// add adds a number in units of so many to a sum, which is known from then on.
func add(to **int64, text string, unit int64) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return
	}
	if *to == nil {
		*to = new(int64)
	}
	**to += n * unit
}

// lines of a file, each with at least one field. A file that is not there has none.
func (h Host) lines(path string) (out [][]string) {
	b, err := os.ReadFile(filepath.Join(string(h), path))
	if err != nil {
		return nil
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		// "eth0:123" where the number is long
		if f := strings.Fields(strings.Replace(s.Text(), ":", ": ", 1)); len(f) > 0 {
			out = append(out, f)
		}
	}
	return out
}

func (h Host) exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(append([]string{string(h)}, path...)...))
	return err == nil
}
