//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) vm() *cobra.Command {
	return group("vm", "Virtual machines",
		a.vmList(), a.vmShow(), a.vmCreate(), a.vmStart(), a.vmStop(), a.vmShutdown(), a.vmPause(), a.vmResume(),
		a.vmReboot(), a.vmReset(), a.vmUpdate(), a.vmDelete(), a.vmDisk(), a.vmNIC(), a.vmSnapshot(), a.vmStats(), a.vmUnmanaged(), a.vmImport(),
		a.history("history VM", "What happened to a virtual machine",
			func(ctx context.Context, s *session, args []string, size *int, cursor *string) (openapi.History, error) {
				return client.Decode[openapi.History](s.ListVMHistory(ctx, args[0], &openapi.ListVMHistoryParams{Limit: size, Cursor: cursor}))
			}),
		a.vmRevert(), a.vmConsole(), a.vmVNC(), a.vmLog())
}

func (a *app) vmList() *cobra.Command {
	var l *listing
	var state, node, backend, tag string
	var autostart bool
	cmd := a.leaf("list", "List virtual machines", func(ctx context.Context, s *session, _ []string) error {
		params := openapi.ListVMsParams{
			Sort: optional(l.sort), Q: optional(l.find), Node: optional(node), Tag: optional(tag),
			State: (*openapi.VMState)(optional(state)), Backend: (*openapi.Backend)(optional(backend)),
			Autostart: given(s.cmd, "autostart", autostart),
		}
		vms, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.VM, *string, error) {
			params.Limit, params.Cursor = size, cursor
			page, err := client.Decode[openapi.VMList](s.ListVMs(ctx, &params))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, vms, func(v openapi.VM) string { return v.Name }, []column[openapi.VM]{
			{"NAME", func(v openapi.VM) string { return v.Name }},
			{"STATE", func(v openapi.VM) string { return string(v.State) }},
			{"BACKEND", func(v openapi.VM) string { return v.Backend }},
			{"CPUS", func(v openapi.VM) string { return strconv.Itoa(v.CPUs) }},
			{"MEMORY", func(v openapi.VM) string { return fmt.Sprintf("%d MiB", v.MemoryMB) }},
			{"DISKS", func(v openapi.VM) string { return diskSizes(v) }},
			{"TAGS", func(v openapi.VM) string { return strings.Join(v.Tags, ",") }},
			{"CREATED", func(v openapi.VM) string { return stamp(v.CreatedAt) }},
			{"ID", func(v openapi.VM) string { return v.ID.String() }},
		})
	})
	l = listFlags(cmd, 0, "name, created_at, updated_at or a filter")
	l.search(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	cmd.Flags().StringVar(&node, "node", "", "only on this node")
	cmd.Flags().StringVar(&backend, "backend", "", "only of this backend")
	cmd.Flags().StringVar(&tag, "tag", "", "only with this tag")
	cmd.Flags().BoolVar(&autostart, "autostart", false, "only those that start with their node, or with =false do not")
	return cmd
}

func diskSizes(v openapi.VM) string {
	sizes := make([]string, len(v.Disks))
	for i, d := range v.Disks {
		sizes[i] = strconv.FormatInt(d.SizeGB, 10)
	}
	if len(sizes) == 0 {
		return ""
	}
	return strings.Join(sizes, "+") + " GiB"
}

func (a *app) vmShow() *cobra.Command {
	var at string
	cmd := a.leaf("show VM", "Show a virtual machine", func(ctx context.Context, s *session, args []string) error {
		v, err := client.Decode[openapi.VM](s.GetVM(ctx, args[0], &openapi.GetVMParams{At: optional(at)}))
		if err != nil {
			return err
		}
		return printOne(s, v.Name, v)
	})
	cmd.Flags().StringVar(&at, "at", "", "as it was: a time (RFC 3339) or a position")
	return cmd
}

func (a *app) vmDelete() *cobra.Command {
	var c *change
	var force, keep bool
	cmd := a.leaf("delete VM", "Delete a virtual machine and its disks", func(ctx context.Context, s *session, args []string) error {
		resp, err := s.DeleteVM(ctx, args[0], &openapi.DeleteVMParams{
			Force: given(s.cmd, "force", force), KeepDisks: given(s.cmd, "keep-disks", keep),
			Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam(),
		})
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also when it runs")
	cmd.Flags().BoolVar(&keep, "keep-disks", false, "keep its volumes")
	return cmd
}

func (a *app) vmRevert() *cobra.Command {
	var c *change
	var to string
	cmd := a.leaf("revert VM", "Bring the configuration back to what it was", func(ctx context.Context, s *session, args []string) error {
		if to == "" {
			return &usageError{s.cmd, "give --to with a position of horcrux vm history " + args[0]}
		}
		params := &openapi.RevertVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.RevertVM(ctx, args[0], params, openapi.Revert{To: to})
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().StringVar(&to, "to", "", "the position whose configuration is wanted")
	return cmd
}
