package compute

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	wire "horcrux/pkg/events/vm"
)

// serveUnmanaged answers for the node which guests no machine is, until ctx ends. Whether they bear our mark does not
// matter: an import that failed may have left it, and so may a database that was restored from a backup.
func (s *Service) serveUnmanaged(ctx context.Context) error {
	return s.Bus.Serve(ctx, Domain, s.Node, wire.UnmanagedMethod, func(ctx context.Context, _ json.RawMessage) (any, error) {
		ctx, cancel := context.WithTimeout(ctx, infoTime)
		defer cancel()
		all, err := s.Driver.Domains(ctx)
		if err != nil {
			s.Log.WarnContext(ctx, "list the guests that others made", "err", err)
			return nil, unavailable()
		}
		known, err := s.machinesKnown(ctx)
		if err != nil {
			return nil, err
		}
		foreign := []wire.Unmanaged{}
		for _, d := range all {
			if !known[d.ID] {
				foreign = append(foreign, wire.Unmanaged{ID: d.ID, Name: d.Name, NativeID: d.NativeID, Backend: "qemu", Node: s.Node, State: observed(d.State)})
			}
		}
		return foreign, nil
	})
}

// machinesKnown are the machines that there are, on all nodes.
func (s *Service) machinesKnown(ctx context.Context) (map[uuid.UUID]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	holders, err := s.Store.Holders(ctx, wire.NameScope)
	if err != nil {
		return nil, fmt.Errorf("list the virtual machines: %w", err)
	}
	known := make(map[uuid.UUID]bool, len(holders))
	for _, stream := range holders {
		known[stream.ID()] = true
	}
	return known, nil
}
