package rest

import (
	"context"
	"slices"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/api/submit"
)

// ListUnmanagedVMs implements StrictServerInterface, as the method below does.
func (s *Server) ListUnmanagedVMs(ctx context.Context, _ ListUnmanagedVMsRequestObject) (ListUnmanagedVMsResponseObject, error) {
	if err := s.caughtUp(ctx, vm.Kind); err != nil {
		return nil, err
	}
	all, err := s.Usage.Unmanaged(ctx)
	if err != nil {
		return nil, err
	}
	return value(all)
}

func (s *Server) ImportVM(ctx context.Context, r ImportVMRequestObject) (ImportVMResponseObject, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		data := vm.ImportData{Backend: string(or(r.Body.Backend, openapi.BackendQemu)), NativeID: r.Body.NativeID}
		if err := s.built(data.Backend); err != nil {
			return submit.Intent{}, err
		}
		all, err := s.Usage.Unmanaged(ctx)
		if err != nil {
			return submit.Intent{}, err
		}
		i := slices.IndexFunc(all.Items, func(u vm.Unmanaged) bool { return u.NativeID == data.NativeID || u.ID.String() == data.NativeID })
		switch {
		case i < 0 && len(all.Missing) > 0:
			return submit.Intent{}, problem.New(problem.HypervisorUnavailable, "node %s does not answer, and no other has that guest", all.Missing[0].ID)
		case i < 0:
			return submit.Intent{}, problem.Invalid(problem.Field{Field: "native_id", Detail: "no node has such a guest that is not managed yet; see GET /api/vms/unmanaged"})
		}
		found := all.Items[i]
		return submit.Intent{
			Resource: &vm.Resource, Collection: vm.Resource.Collection, Target: found.ID, Node: found.Node.String(), Type: "vm.import", Data: data,
		}, nil
	})
}
