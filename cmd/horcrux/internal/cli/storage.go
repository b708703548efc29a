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

func (a *app) pool() *cobra.Command {
	return group("pool", "Storage pools", a.poolList(), a.poolShow())
}

func (a *app) poolList() *cobra.Command {
	var l *listing
	cmd := a.leaf("list", "List storage pools", func(ctx context.Context, s *session, _ []string) error {
		params := openapi.ListPoolsParams{Sort: optional(l.sort), Q: optional(l.find)}
		pools, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.Pool, *string, error) {
			params.Limit, params.Cursor = size, cursor
			page, err := client.Decode[openapi.PoolList](s.ListPools(ctx, &params))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, pools, func(p openapi.Pool) string { return p.Name }, []column[openapi.Pool]{
			{"NAME", func(p openapi.Pool) string { return p.Name }},
			{"TYPE", func(p openapi.Pool) string { return p.Type }},
			{"STATE", func(p openapi.Pool) string { return p.State }},
			{"PATH", func(p openapi.Pool) string { return p.Path }},
			{"NODE", func(p openapi.Pool) string { return p.Node.String() }},
			{"ID", func(p openapi.Pool) string { return p.ID.String() }},
		})
	})
	l = listFlags(cmd, 0, "name, created_at, type")
	l.search(cmd)
	return cmd
}

func (a *app) poolShow() *cobra.Command {
	var at string
	cmd := a.leaf("show POOL", "Show a storage pool", func(ctx context.Context, s *session, args []string) error {
		p, err := client.Decode[openapi.Pool](s.GetPool(ctx, args[0], &openapi.GetPoolParams{At: optional(at)}))
		if err != nil {
			return err
		}
		return printOne(s, p.Name, p)
	})
	cmd.Flags().StringVar(&at, "at", "", "as it was: a time (RFC 3339) or a position")
	return cmd
}

func (a *app) volume() *cobra.Command {
	return group("volume", "Volumes of storage pools", a.volumeList(), a.volumeShow(), a.volumeCreate(), a.volumeDelete())
}

func (a *app) volumeList() *cobra.Command {
	var l *listing
	var state string
	cmd := a.leaf("list POOL", "List the volumes of a pool", func(ctx context.Context, s *session, args []string) error {
		params := openapi.ListVolumesParams{
			Sort: optional(l.sort), Q: optional(l.find), State: (*openapi.VolumeState)(optional(state)),
		}
		volumes, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.Volume, *string, error) {
			params.Limit, params.Cursor = size, cursor
			page, err := client.Decode[openapi.VolumeList](s.ListVolumes(ctx, args[0], &params))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, volumes, func(v openapi.Volume) string { return v.Name }, []column[openapi.Volume]{
			{"NAME", func(v openapi.Volume) string { return v.Name }},
			{"STATE", func(v openapi.Volume) string { return v.State }},
			{"SIZE", func(v openapi.Volume) string { return strconv.FormatInt(v.SizeGB, 10) + " GiB" }},
			{"FORMAT", func(v openapi.Volume) string { return v.Format }},
			{"OWNER", func(v openapi.Volume) string { return string(v.Owner) }},
			{"CREATED", func(v openapi.Volume) string { return stamp(v.CreatedAt) }},
			{"ID", func(v openapi.Volume) string { return v.ID.String() }},
		})
	})
	l = listFlags(cmd, 0, "name, created_at, state")
	l.search(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	return cmd
}

func (a *app) volumeShow() *cobra.Command {
	var at string
	cmd := a.leaf("show POOL VOLUME", "Show a volume", func(ctx context.Context, s *session, args []string) error {
		v, err := client.Decode[openapi.Volume](s.GetVolume(ctx, args[0], args[1], &openapi.GetVolumeParams{At: optional(at)}))
		if err != nil {
			return err
		}
		return printOne(s, v.Name, v)
	})
	cmd.Flags().StringVar(&at, "at", "", "as it was: a time (RFC 3339) or a position")
	return cmd
}

func (a *app) volumeCreate() *cobra.Command {
	var c *change
	var size int64
	var format string
	var thin bool
	cmd := a.leaf("create POOL NAME", "Create a volume", func(ctx context.Context, s *session, args []string) error {
		if size == 0 {
			return &usageError{s.cmd, "give --size-gb"}
		}
		resp, err := s.CreateVolume(ctx, args[0], &openapi.CreateVolumeParams{Wait: s.wait(), Reason: c.reasonParam()}, openapi.VolumeCreate{
			Name: args[1], SizeGB: size, Format: (*openapi.DiskFormat)(optional(format)), Thin: given(s.cmd, "thin", thin),
		})
		return s.finish(ctx, fmt.Sprintf("%s/%s", args[0], args[1]), resp, err)
	})
	c = a.changing(cmd)
	cmd.Flags().Int64Var(&size, "size-gb", 0, "size in GiB")
	cmd.Flags().StringVar(&format, "format", "", "qcow2 or raw")
	cmd.Flags().BoolVar(&thin, "thin", true, "take space only for what is written")
	return cmd
}

func (a *app) volumeDelete() *cobra.Command {
	var c *change
	cmd := a.leaf("delete POOL VOLUME", "Delete a volume that nobody owns", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.DeleteVolumeParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.DeleteVolume(ctx, args[0], args[1], params)
		return s.finish(ctx, fmt.Sprintf("%s/%s", args[0], args[1]), resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}
