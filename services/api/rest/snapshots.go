package rest

import (
	"context"
	"encoding/json"
	"fmt"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
)

// ListVMSnapshots implements StrictServerInterface, as the methods below do. Snapshots are a part of their machine.
func (s *Server) ListVMSnapshots(ctx context.Context, r ListVMSnapshotsRequestObject) (ListVMSnapshotsResponseObject, error) {
	a, err := s.show(ctx, named(&vm.Resource, r.ID))
	if err != nil {
		return nil, err
	}
	var v vm.View
	if err := json.Unmarshal(a.body, &v); err != nil {
		return nil, fmt.Errorf("view of a virtual machine: %w", err)
	}
	a.body, err = json.Marshal(openapi.VMSnapshotList{Items: v.Snapshots, Position: a.header[events.PositionHeader]})
	return a, err
}

func (s *Server) CreateVMSnapshot(ctx context.Context, r CreateVMSnapshotRequestObject) (CreateVMSnapshotResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "snapshot", vm.SnapshotData{
		Name: r.Body.SnapshotName, Description: or(r.Body.Description, ""), Memory: or(r.Body.Memory, false),
	})
}

func (s *Server) RestoreVMSnapshot(ctx context.Context, r RestoreVMSnapshotRequestObject) (RestoreVMSnapshotResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "restore_snapshot", vm.SnapshotNameData{Name: r.Name})
}

func (s *Server) DeleteVMSnapshot(ctx context.Context, r DeleteVMSnapshotRequestObject) (DeleteVMSnapshotResponseObject, error) {
	return s.command(ctx, named(&vm.Resource, r.ID), "delete_snapshot", vm.SnapshotNameData{Name: r.Name})
}
