package compute

import (
	"context"
	"encoding/json"

	wire "horcrux/pkg/events/vm"
)

// serveUnmanaged answers for the node which guests others made, until ctx ends.
func (s *Service) serveUnmanaged(ctx context.Context) error {
	return s.Bus.Serve(ctx, Domain, s.Node, wire.UnmanagedMethod, func(ctx context.Context, _ json.RawMessage) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, infoTime)
		defer cancel()
		all, err := s.Driver.Domains(ctx)
		if err != nil {
			s.Log.WarnContext(ctx, "list the guests that others made", "err", err)
			return nil, unavailable()
		}
		foreign := []wire.Unmanaged{}
		for _, d := range all {
			if !d.Managed {
				foreign = append(foreign, wire.Unmanaged{ID: d.ID, Name: d.Name, NativeID: d.NativeID, Backend: "qemu", Node: s.Node, State: observed(d.State)})
			}
		}
		return foreign, nil
	})
}
