//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// mostNames is how many live names are asked for. Who has more types a part of the name first.
const mostNames = 200

func limit(n int) *int { return &n }

// offers makes completions of items, each with what a person wants to know of it.
func offers[T any](items []T, err error, name, about func(T) string) ([]cobra.Completion, error) {
	var found []cobra.Completion
	for _, item := range items {
		found = append(found, cobra.CompletionWithDesc(name(item), printable(about(item))))
	}
	return found, err
}

func vmNames(ctx context.Context, c *client.Client, _ []string, begin string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.VMList](c.ListVMs(ctx, &openapi.ListVMsParams{Q: optional(begin), Limit: limit(mostNames)}))
	return offers(list.Items, err, func(v openapi.VM) string { return v.Name }, func(v openapi.VM) string { return string(v.State) })
}

// vmPaths are what operations call machines.
func vmPaths(ctx context.Context, c *client.Client, _ []string, begin string) ([]cobra.Completion, error) {
	const collection = "/api/vms/"
	names, err := vmNames(ctx, c, nil, strings.TrimPrefix(begin, collection))
	for i := range names {
		names[i] = collection + names[i]
	}
	return names, err
}

// diskNames, nicNames and snapshotNames are those of the machine before them.
func diskNames(ctx context.Context, c *client.Client, args []string, _ string) ([]cobra.Completion, error) {
	if len(args) == 0 {
		return nil, nil
	}
	v, err := client.Decode[openapi.VM](c.GetVM(ctx, args[0], nil))
	return offers(v.Disks, err, func(d openapi.VMDisk) string { return d.Name },
		func(d openapi.VMDisk) string { return fmt.Sprintf("%d GiB %s", d.SizeGB, d.Pool) })
}

func nicNames(ctx context.Context, c *client.Client, args []string, _ string) ([]cobra.Completion, error) {
	if len(args) == 0 {
		return nil, nil
	}
	v, err := client.Decode[openapi.VM](c.GetVM(ctx, args[0], nil))
	return offers(v.Networks, err, func(n openapi.VMNIC) string { return n.Name },
		func(n openapi.VMNIC) string { return n.Network + " " + text(n.MAC) })
}

func snapshotNames(ctx context.Context, c *client.Client, args []string, _ string) ([]cobra.Completion, error) {
	if len(args) == 0 {
		return nil, nil
	}
	list, err := client.Decode[openapi.VMSnapshotList](c.ListVMSnapshots(ctx, args[0], nil))
	return offers(list.Items, err, func(o openapi.VMSnapshot) string { return o.Name },
		func(o openapi.VMSnapshot) string { return o.Description })
}

// vmTags are those that machines have.
func vmTags(ctx context.Context, c *client.Client, _ []string, _ string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.VMList](c.ListVMs(ctx, &openapi.ListVMsParams{Limit: limit(mostNames)}))
	var tags []cobra.Completion
	for _, v := range list.Items {
		tags = append(tags, v.Tags...)
	}
	slices.Sort(tags)
	return slices.Compact(tags), err
}

// vmPositions are where the history of the machine before them can be gone back to, the newest first.
func vmPositions(ctx context.Context, c *client.Client, args []string, _ string) ([]cobra.Completion, error) {
	if len(args) == 0 {
		return nil, nil
	}
	entries, err := pages(0, func(size *int, cursor *string) ([]openapi.HistoryEntry, *string, error) {
		page, err := client.Decode[openapi.History](c.ListVMHistory(ctx, args[0], &openapi.ListVMHistoryParams{Limit: size, Cursor: cursor}))
		return page.Items, page.Next, err
	})
	slices.Reverse(entries)
	return offers(entries, err, func(e openapi.HistoryEntry) string { return e.Position },
		func(e openapi.HistoryEntry) string { return stamp(e.Time) + " " + e.Type })
}

func poolNames(ctx context.Context, c *client.Client, _ []string, begin string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.PoolList](c.ListPools(ctx, &openapi.ListPoolsParams{Q: optional(begin), Limit: limit(mostNames)}))
	return offers(list.Items, err, func(p openapi.Pool) string { return p.Name }, func(p openapi.Pool) string { return p.Type + " " + p.Path })
}

// nodeIDs are the nodes that have a pool, as each has from its first start.
func nodeIDs(ctx context.Context, c *client.Client, _ []string, _ string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.PoolList](c.ListPools(ctx, &openapi.ListPoolsParams{Limit: limit(mostNames)}))
	ids := make([]cobra.Completion, len(list.Items))
	for i, p := range list.Items {
		ids[i] = p.Node.String()
	}
	slices.Sort(ids)
	return slices.Compact(ids), err
}

func volumeNames(ctx context.Context, c *client.Client, args []string, begin string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.VolumeList](c.ListVolumes(ctx, args[0], &openapi.ListVolumesParams{Q: optional(begin), Limit: limit(mostNames)}))
	return offers(list.Items, err, func(v openapi.Volume) string { return v.Name },
		func(v openapi.Volume) string { return strings.TrimSpace(v.State + " " + string(v.Owner)) })
}

// operationIDs are the latest.
func operationIDs(ctx context.Context, c *client.Client, _ []string, _ string) ([]cobra.Completion, error) {
	const latest = 30
	list, err := client.Decode[openapi.OperationList](c.ListOperations(ctx, &openapi.ListOperationsParams{Limit: limit(latest)}))
	return offers(list.Items, err, func(o openapi.Operation) string { return o.ID.String() },
		func(o openapi.Operation) string { return o.Type + " " + string(o.State) })
}

func letterSequences(ctx context.Context, c *client.Client, _ []string, _ string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.DeadLetterList](c.ListDeadLetters(ctx))
	return offers(list.Items, err, letterName, func(d openapi.DeadLetter) string { return text(d.Type) + " " + d.Reason })
}

func unmanagedNames(ctx context.Context, c *client.Client, _ []string, _ string) ([]cobra.Completion, error) {
	all, err := client.Decode[openapi.UnmanagedVMs](c.ListUnmanagedVMs(ctx, nil))
	return offers(all.Items, err, func(u openapi.UnmanagedVM) string { return u.NativeID }, func(u openapi.UnmanagedVM) string { return string(u.State) })
}

func networkNames(ctx context.Context, c *client.Client, _ []string, begin string) ([]cobra.Completion, error) {
	list, err := client.Decode[openapi.NetworkList](c.ListNetworks(ctx, &openapi.ListNetworksParams{Q: optional(begin), Limit: limit(mostNames)}))
	return offers(list.Items, err, func(n openapi.Network) string { return n.Name }, func(n openapi.Network) string { return n.Mode })
}
