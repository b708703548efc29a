//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
)

func (a *app) vmSnapshot() *cobra.Command {
	return group("snapshot", "Snapshots of a virtual machine", a.vmSnapshotCreate(), a.vmSnapshotList(), a.vmSnapshotRestore(), a.vmSnapshotDelete())
}

func (a *app) vmSnapshotCreate() *cobra.Command {
	var c *change
	var memory bool
	var description string
	cmd := a.leaf("create VM NAME", "Take a snapshot", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.CreateVMSnapshotParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		body := openapi.VMSnapshotCreate{SnapshotName: args[1], Memory: given(s.cmd, "memory", memory), Description: given(s.cmd, "description", description)}
		resp, err := s.CreateVMSnapshot(ctx, args[0], params, body)
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Long = "Take a snapshot of the disks, and with --memory of the guest that runs on them: it is held while that is written."
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().BoolVar(&memory, "memory", false, "with the memory of the guest, which has to run or be paused")
	cmd.Flags().StringVar(&description, "description", "", "what it is for")
	return cmd
}

func (a *app) vmSnapshotList() *cobra.Command {
	var at string
	cmd := a.leaf("list VM", "List the snapshots of a virtual machine, each below the one that it goes on from", func(ctx context.Context, s *session, args []string) error {
		list, err := client.Decode[openapi.VMSnapshotList](s.ListVMSnapshots(ctx, args[0], &openapi.ListVMSnapshotsParams{At: optional(at)}))
		if err != nil {
			return err
		}
		name := func(o vm.Snapshot) string { return o.Name }
		if s.output != "table" {
			return printList(s, list.Items, name, nil)
		}
		rows, depth := tree(list.Items)
		return printList(s, rows, name, []column[openapi.VMSnapshot]{
			{"NAME", func(o vm.Snapshot) string { return strings.Repeat("  ", depth[o.Name]) + o.Name }},
			{"MEMORY", func(o vm.Snapshot) string { return map[bool]string{true: "yes", false: "no"}[o.Memory] }},
			{"STATE", func(o vm.Snapshot) string { return string(o.State) }},
			{"CREATED", func(o vm.Snapshot) string { return stamp(o.CreatedAt) }},
			{"DESCRIPTION", func(o vm.Snapshot) string { return o.Description }},
		})
	})
	cmd.Flags().StringVar(&at, "at", "", "as they were: a time (RFC 3339) or a position")
	return cmd
}

// tree puts each snapshot below its parent, and says how deep that is.
func tree(all []vm.Snapshot) (rows []vm.Snapshot, depth map[string]int) {
	children := map[string][]vm.Snapshot{}
	for _, o := range all {
		parent := ""
		if o.Parent != nil {
			parent = *o.Parent
		}
		children[parent] = append(children[parent], o)
	}
	depth = map[string]int{}
	var below func(parent string, n int)
	below = func(parent string, n int) {
		for _, o := range children[parent] {
			depth[o.Name] = n
			rows = append(rows, o)
			below(o.Name, n+1)
		}
	}
	below("", 0)
	return rows, depth
}

func (a *app) vmSnapshotRestore() *cobra.Command {
	var c *change
	cmd := a.leaf("restore VM SNAPSHOT", "Go back to a snapshot", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.RestoreVMSnapshotParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.RestoreVMSnapshot(ctx, args[0], args[1], params)
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Long = "Go back to a snapshot. What was written since is lost; the configuration stays."
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}

func (a *app) vmSnapshotDelete() *cobra.Command {
	var c *change
	cmd := a.leaf("delete VM SNAPSHOT", "Delete a snapshot; those after it stay", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.DeleteVMSnapshotParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.DeleteVMSnapshot(ctx, args[0], args[1], params)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}
