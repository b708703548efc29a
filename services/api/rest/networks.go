package rest

import (
	"context"

	"horcrux/pkg/events"
	"horcrux/pkg/events/network"
	"horcrux/pkg/openapi"
)

// ListNetworks implements StrictServerInterface, as the methods below do.
func (s *Server) ListNetworks(ctx context.Context, _ ListNetworksRequestObject) (ListNetworksResponseObject, error) {
	return s.list(ctx, &network.Resource, nil)
}

func (s *Server) GetNetwork(ctx context.Context, r GetNetworkRequestObject) (GetNetworkResponseObject, error) {
	return s.show(ctx, named(&network.Resource, r.ID))
}

func (s *Server) ListNetworkHistory(ctx context.Context, r ListNetworkHistoryRequestObject) (ListNetworkHistoryResponseObject, error) {
	return s.history(ctx, named(&network.Resource, r.ID))
}

// CreateNetwork leaves it to a node what ranges and bridges can be.
func (s *Server) CreateNetwork(ctx context.Context, r CreateNetworkRequestObject) (CreateNetworkResponseObject, error) {
	return s.create(ctx, &network.Resource, func(context.Context) (string, any, error) {
		b := r.Body
		return events.AnyNode, network.CreateData{
			Name: b.Name, Mode: string(or(b.Mode, openapi.NetworkModeNat)), Bridge: or(b.Bridge, ""), IPv4: b.IPv4, IPv6: b.IPv6, DHCP: b.DHCP,
		}, checkName(b.Name)
	})
}

func (s *Server) DeleteNetwork(ctx context.Context, r DeleteNetworkRequestObject) (DeleteNetworkResponseObject, error) {
	return s.command(ctx, named(&network.Resource, r.ID), "delete", nil)
}
