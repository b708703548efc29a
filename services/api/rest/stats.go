package rest

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/pkg/usage"
	"horcrux/services/api/telemetry"
)

// Usage is what nodes tell that is not recorded: what they and their machines use, as JSON, and which guests others made.
type Usage interface {
	VM(ctx context.Context, node, id uuid.UUID) (json.RawMessage, error)
	VMHistory(ctx context.Context, node, id uuid.UUID) (json.RawMessage, error)
	NodeHistory(ctx context.Context, node uuid.UUID) (json.RawMessage, error)
	All(ctx context.Context) (usage.All, error)
	Unmanaged(ctx context.Context) (telemetry.Unmanaged, error)
}

// GetVMStats implements StrictServerInterface, as the methods below do.
func (s *Server) GetVMStats(ctx context.Context, r GetVMStatsRequestObject) (GetVMStatsResponseObject, error) {
	v, err := s.machine(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	doc, err := s.Usage.VM(ctx, v.Node, v.ID)
	if p := problem.From(err); p != nil && p.Code == problem.NotFound {
		return value(telemetry.Unknown(v, time.Now().UTC()))
	}
	return passed(doc, err)
}

func (s *Server) ListVMStatsHistory(ctx context.Context, r ListVMStatsHistoryRequestObject) (ListVMStatsHistoryResponseObject, error) {
	v, err := s.machine(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	doc, err := s.Usage.VMHistory(ctx, v.Node, v.ID)
	if p := problem.From(err); p != nil && p.Code == problem.NotFound {
		return value(usage.NoHistory(v.ID))
	}
	return passed(doc, err)
}

func (s *Server) GetStats(ctx context.Context, _ GetStatsRequestObject) (GetStatsResponseObject, error) {
	if err := s.caughtUp(ctx, vm.Kind); err != nil {
		return nil, err
	}
	all, err := s.Usage.All(ctx)
	if err != nil {
		return nil, err
	}
	return value(all)
}

func (s *Server) ListNodeStatsHistory(ctx context.Context, r ListNodeStatsHistoryRequestObject) (ListNodeStatsHistoryResponseObject, error) {
	if err := s.caughtUp(ctx, vm.Kind); err != nil {
		return nil, err
	}
	node, err := s.Node(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return passed(s.Usage.NodeHistory(ctx, node))
}

// machine finds a virtual machine that is there.
func (s *Server) machine(ctx context.Context, id string) (v vm.View, err error) {
	if err := s.caughtUp(ctx, vm.Kind); err != nil {
		return v, err
	}
	r := named(&vm.Resource, id)
	row, err := s.row(ctx, r)
	if err != nil {
		return v, err
	}
	if row == nil || row.Deleted {
		return v, r.missing()
	}
	return v, json.Unmarshal(row.Doc, &v)
}

// passed answers with a node's own words.
func passed(doc json.RawMessage, err error) (answer, error) {
	return answer{status: http.StatusOK, body: doc, header: map[string]string{"Content-Type": "application/json"}}, err
}
