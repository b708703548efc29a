//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) vmStats() *cobra.Command {
	var history bool
	cmd := a.leaf("stats VM", "What a virtual machine uses", func(ctx context.Context, s *session, args []string) error {
		if history {
			return s.history(ctx, args[0])
		}
		v, err := client.Decode[openapi.VMStats](s.GetVMStats(ctx, args[0], &openapi.GetVMStatsParams{}))
		if err != nil {
			return err
		}
		return printOne(s, v.Name, v)
	})
	cmd.Flags().BoolVar(&history, "history", false, "in the last hour, the oldest sample first")
	return cmd
}

func (s *session) history(ctx context.Context, vm string) error {
	h, err := client.Decode[openapi.StatsHistory](s.ListVMStatsHistory(ctx, vm, &openapi.ListVMStatsHistoryParams{}))
	if err != nil {
		return err
	}
	return printList(s, h.Items, func(i openapi.StatsSample) string { return stamp(i.At) }, []column[openapi.StatsSample]{
		{"TIME", func(i openapi.StatsSample) string { return stamp(i.At) }},
		{"CPU %", func(i openapi.StatsSample) string { return tenth(i.CPUPercent) }},
		{"USED MiB", func(i openapi.StatsSample) string { return number(i.MemoryUsedMB) }},
		{"RSS MiB", func(i openapi.StatsSample) string { return number(i.MemoryRSSMB) }},
		{"READ/s", func(i openapi.StatsSample) string { return bytesText(i.DiskReadRate) }},
		{"WRITE/s", func(i openapi.StatsSample) string { return bytesText(i.DiskWriteRate) }},
		{"RECEIVED/s", func(i openapi.StatsSample) string { return bytesText(i.NetworkRxRate) }},
		{"SENT/s", func(i openapi.StatsSample) string { return bytesText(i.NetworkTxRate) }},
	})
}

// What is not known is "", which a table shows as a dash.

func number(n *int64) string {
	if n == nil {
		return ""
	}
	return strconv.FormatInt(*n, 10)
}

func tenth(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', 1, 64)
}

// bytesText is a number of bytes for a person: 1.2 MB.
func bytesText(v *float64) string {
	if v == nil {
		return ""
	}
	n := *v
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 999.5 {
			if unit == "B" {
				return fmt.Sprintf("%.0f B", n)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}
