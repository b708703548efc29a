//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"net/netip"
	"strconv"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) network() *cobra.Command {
	return group("network", "Networks that guests are on",
		a.networkList(), a.networkShow(), a.networkCreate(), a.networkDelete(),
		a.history("history NETWORK", "What happened to a network",
			func(ctx context.Context, s *session, args []string, size *int, cursor *string) (openapi.History, error) {
				return client.Decode[openapi.History](s.ListNetworkHistory(ctx, args[0], &openapi.ListNetworkHistoryParams{Limit: size, Cursor: cursor}))
			}))
}

func (a *app) networkList() *cobra.Command {
	var l *listing
	var mode, state, node string
	cmd := a.leaf("list", "List networks", func(ctx context.Context, s *session, _ []string) error {
		params := openapi.ListNetworksParams{
			Sort: optional(l.sort), Q: optional(l.find), Node: optional(node),
			Mode: (*openapi.NetworkMode)(optional(mode)), State: (*openapi.NetworkState)(optional(state)),
		}
		networks, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.Network, *string, error) {
			params.Limit, params.Cursor = size, cursor
			page, err := client.Decode[openapi.NetworkList](s.ListNetworks(ctx, &params))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, networks, func(n openapi.Network) string { return n.Name }, []column[openapi.Network]{
			{"NAME", func(n openapi.Network) string { return n.Name }},
			{"STATE", func(n openapi.Network) string { return string(n.State) }},
			{"MODE", func(n openapi.Network) string { return n.Mode }},
			{"BRIDGE", func(n openapi.Network) string { return n.Bridge }},
			{"IPV4", func(n openapi.Network) string { return prefix(n.IPv4) }},
			{"IPV6", func(n openapi.Network) string { return prefix(n.IPv6) }},
			{"DHCP", func(n openapi.Network) string { return strconv.FormatBool(n.DHCP) }},
			{"ID", func(n openapi.Network) string { return n.ID.String() }},
		})
	})
	l = listFlags(cmd, 0, "name, created_at, mode, state")
	l.search(cmd)
	cmd.Flags().StringVar(&mode, "mode", "", "only of this mode")
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	cmd.Flags().StringVar(&node, "node", "", "only on this node")
	return cmd
}

// prefix writes a range, or nothing.
func prefix(p *netip.Prefix) string {
	if p == nil {
		return ""
	}
	return p.String()
}

func (a *app) networkShow() *cobra.Command {
	var at string
	cmd := a.leaf("show NETWORK", "Show a network", func(ctx context.Context, s *session, args []string) error {
		n, err := client.Decode[openapi.Network](s.GetNetwork(ctx, args[0], &openapi.GetNetworkParams{At: optional(at)}))
		if err != nil {
			return err
		}
		return printOne(s, n.Name, n)
	})
	cmd.Flags().StringVar(&at, "at", "", "as it was: a time (RFC 3339) or a position")
	return cmd
}

func (a *app) networkCreate() *cobra.Command {
	var c *change
	var mode, bridge, ipv4, ipv6 string
	var dhcp bool
	cmd := a.leaf("create NAME", "Create a network", func(ctx context.Context, s *session, args []string) error {
		resp, err := s.CreateNetwork(ctx, &openapi.CreateNetworkParams{Wait: s.wait(), Reason: c.reasonParam()}, openapi.NetworkCreate{
			Name: args[0], Mode: (*openapi.NetworkMode)(optional(mode)), Bridge: optional(bridge),
			IPv4: optional(ipv4), IPv6: optional(ipv6), DHCP: given(s.cmd, "dhcp", dhcp),
		})
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	cmd.Flags().StringVar(&mode, "mode", "", "nat (the default), isolated or bridge")
	cmd.Flags().StringVar(&bridge, "bridge", "", "a bridge of the node, for mode bridge; else the name of the one to be made")
	cmd.Flags().StringVar(&ipv4, "ipv4", "", "the gateway's address, such as 192.168.130.1/24")
	cmd.Flags().StringVar(&ipv6, "ipv6", "", "the gateway's address, such as fd00:130::1/64")
	cmd.Flags().BoolVar(&dhcp, "dhcp", true, "give guests addresses")
	return cmd
}

func (a *app) networkDelete() *cobra.Command {
	var c *change
	cmd := a.leaf("delete NETWORK", "Delete a network that no guest uses", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.DeleteNetworkParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.DeleteNetwork(ctx, args[0], params)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}
