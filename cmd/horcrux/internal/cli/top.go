//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// statistics is openapi.Stats with its machines read.
type statistics struct {
	Nodes   []openapi.NodeStats   `json:"nodes"`
	VMs     []openapi.VMStats     `json:"vms"`
	Missing []openapi.MissingNode `json:"missing"`
}

// uses is by what machines are sorted, the greatest first.
var uses = map[string]func(openapi.VMStats) *float64{
	"cpu": func(v openapi.VMStats) *float64 { return v.CPU.Percent },
	"memory": func(v openapi.VMStats) *float64 {
		return floating(cmp.Or(v.Memory.UsedMB, v.Memory.RSSMB))
	},
	"disk": func(v openapi.VMStats) *float64 { return plus(diskRates(v)) },
	"net":  func(v openapi.VMStats) *float64 { return plus(netRates(v)) },
}

func (a *app) top() *cobra.Command {
	var once bool
	var by string
	var interval int
	cmd := a.leaf("top", "What nodes and virtual machines use, again and again", func(ctx context.Context, s *session, _ []string) error {
		if uses[by] == nil {
			return &usageError{s.cmd, fmt.Sprintf("--sort %q is not cpu, memory, disk or net", by)}
		}
		if interval < 1 {
			return &usageError{s.cmd, "--interval is at least 1 second"}
		}
		screen, live := s.out.(*os.File)
		if once || s.output != "table" || !live || !term.IsTerminal(int(screen.Fd())) {
			all, err := s.statistics(ctx, by)
			if err != nil {
				return err
			}
			return s.printStatistics(all)
		}
		return s.refresh(ctx, screen, by, time.Duration(interval)*time.Second)
	})
	cmd.Long = `What nodes and virtual machines use, again and again until Ctrl-C.

Where the output is no terminal, with --once and with another -o than table, it is shown once. What is not known is a
dash: rates of a machine that has just been started, and the memory that a guest uses where its balloon driver does not
tell.`
	cmd.Flags().BoolVar(&once, "once", false, "show it once")
	cmd.Flags().StringVar(&by, "sort", "cpu", "the greatest first: cpu, memory, disk or net")
	cmd.Flags().IntVar(&interval, "interval", 2, "seconds between two looks")
	return cmd
}

func (s *session) statistics(ctx context.Context, by string) (statistics, error) {
	all, err := client.Decode[statistics](s.GetStats(ctx, &openapi.GetStatsParams{}))
	slices.SortStableFunc(all.VMs, func(a, b openapi.VMStats) int {
		x, y := uses[by](a), uses[by](b)
		switch {
		case x == nil && y != nil:
			return 1
		case x != nil && y == nil:
			return -1
		case x != nil && *x != *y:
			return cmp.Compare(*y, *x)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all, err
}

func (s *session) printStatistics(all statistics) error {
	switch s.output {
	case "json", "yaml":
		return s.document(all)
	case "table":
		if err := s.printNodes(all); err != nil {
			return err
		}
	}
	nodes := map[string]string{}
	for _, n := range all.Nodes {
		nodes[n.ID.String()] = n.Name
	}
	return printList(s, all.VMs, func(v openapi.VMStats) string { return v.Name }, []column[openapi.VMStats]{
		{"NAME", func(v openapi.VMStats) string { return v.Name }},
		{"NODE", func(v openapi.VMStats) string { return nodes[v.Node.String()] }},
		{"STATE", func(v openapi.VMStats) string { return string(v.State) }},
		{"CPUS", func(v openapi.VMStats) string { return number(v.CPU.CPUs) }},
		{"CPU %", func(v openapi.VMStats) string { return tenth(v.CPU.Percent) }},
		{"MEMORY MiB", func(v openapi.VMStats) string { return number(v.Memory.AssignedMB) }},
		{"USED", func(v openapi.VMStats) string { return number(v.Memory.UsedMB) }},
		{"RSS", func(v openapi.VMStats) string { return number(v.Memory.RSSMB) }},
		{"READ/s", func(v openapi.VMStats) string { r, _ := diskRates(v); return bytesText(r) }},
		{"WRITE/s", func(v openapi.VMStats) string { _, w := diskRates(v); return bytesText(w) }},
		{"RECEIVED/s", func(v openapi.VMStats) string { r, _ := netRates(v); return bytesText(r) }},
		{"SENT/s", func(v openapi.VMStats) string { _, t := netRates(v); return bytesText(t) }},
	})
}

// printNodes writes the nodes above their machines.
func (s *session) printNodes(all statistics) error {
	rows := [][]string{{"NODE", "CPUS", "CPU %", "MEMORY MiB", "USED", "READ/s", "WRITE/s", "RECEIVED/s", "SENT/s"}}
	for _, n := range all.Nodes {
		rows = append(rows, []string{
			n.Name, number(n.CPU.CPUs), tenth(n.CPU.Percent), number(n.Memory.TotalMB), number(n.Memory.UsedMB),
			bytesText(n.Disk.ReadBytesRate), bytesText(n.Disk.WriteBytesRate), bytesText(n.Network.RxBytesRate), bytesText(n.Network.TxBytesRate),
		})
	}
	for _, m := range all.Missing {
		rows = append(rows, []string{m.Name, "does not answer", "", "", "", "", "", "", ""})
	}
	if err := table(s.out, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintln(s.out)
	return err
}

// refresh shows it on a terminal until the user has seen enough, as much as there is room for.
func (s *session) refresh(ctx context.Context, screen *os.File, by string, interval time.Duration) error {
	const home, restOfLine, restOfScreen = "\x1b[H", "\x1b[K", "\x1b[J"
	if _, err := io.WriteString(screen, home+restOfScreen); err != nil {
		return err
	}
	for {
		all, err := s.statistics(ctx, by)
		if errors.Is(err, context.Canceled) {
			return nil
		}
		if err != nil {
			return err
		}
		var page bytes.Buffer
		own := *s
		own.out = &page
		if err := own.printStatistics(all); err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSuffix(page.String(), "\n"), "\n")
		if width, height, err := term.GetSize(int(screen.Fd())); err == nil && height > 1 {
			lines = lines[:min(len(lines), height-1)]
			for i, line := range lines {
				lines[i] = cut(line, width)
			}
		}
		if _, err := io.WriteString(screen, home+strings.Join(lines, restOfLine+"\n")+restOfLine+"\n"+restOfScreen); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// cut shortens a line to a width.
func cut(line string, width int) string {
	if runes := []rune(line); len(runes) > width {
		return string(runes[:width])
	}
	return line
}

func diskRates(v openapi.VMStats) (read, write *float64) {
	for _, d := range v.Disks {
		read, write = plus(read, d.ReadBytesRate), plus(write, d.WriteBytesRate)
	}
	return read, write
}

func netRates(v openapi.VMStats) (received, sent *float64) {
	for _, n := range v.NICs {
		received, sent = plus(received, n.RxBytesRate), plus(sent, n.TxBytesRate)
	}
	return received, sent
}

// plus adds what is known.
func plus(a, b *float64) *float64 {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	v := *a + *b
	return &v
}

func floating(n *int64) *float64 {
	if n == nil {
		return nil
	}
	f := float64(*n)
	return &f
}
