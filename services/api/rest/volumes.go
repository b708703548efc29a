package rest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/pool"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/openapi"
	"horcrux/services/api/submit"
)

// ListPools implements StrictServerInterface, as the methods below do.
func (s *Server) ListPools(ctx context.Context, _ ListPoolsRequestObject) (ListPoolsResponseObject, error) {
	return s.list(ctx, &pool.Resource, nil)
}

func (s *Server) GetPool(ctx context.Context, r GetPoolRequestObject) (GetPoolResponseObject, error) {
	return s.show(ctx, named(&pool.Resource, r.ID))
}

func (s *Server) ListPoolHistory(ctx context.Context, r ListPoolHistoryRequestObject) (ListPoolHistoryResponseObject, error) {
	return s.history(ctx, named(&pool.Resource, r.ID))
}

func (s *Server) ListVolumes(ctx context.Context, r ListVolumesRequestObject) (ListVolumesResponseObject, error) {
	p, err := s.pool(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	return s.list(ctx, &volume.Resource, map[string][]string{"pool": {p.ID.String()}})
}

func (s *Server) CreateVolume(ctx context.Context, r CreateVolumeRequestObject) (CreateVolumeResponseObject, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		if err := checkName(r.Body.Name); err != nil {
			return submit.Intent{}, err
		}
		p, err := s.pool(ctx, r.ID)
		return submit.Intent{
			Resource: &volume.Resource, Collection: volumesOf(p.ID), Target: events.NewID(), Node: p.Node, Type: "volume.create",
			Data: volume.CreateData{
				Pool: p.ID, Name: r.Body.Name, SizeGB: r.Body.SizeGB, Format: string(or(r.Body.Format, openapi.DiskFormatQcow2)),
				Thin: or(r.Body.Thin, true),
			},
		}, err
	})
}

func (s *Server) GetVolume(ctx context.Context, r GetVolumeRequestObject) (GetVolumeResponseObject, error) {
	v, err := s.volume(ctx, r.ID, r.Name)
	if err != nil {
		return nil, err
	}
	return s.show(ctx, v)
}

func (s *Server) ListVolumeHistory(ctx context.Context, r ListVolumeHistoryRequestObject) (ListVolumeHistoryResponseObject, error) {
	v, err := s.volume(ctx, r.ID, r.Name)
	if err != nil {
		return nil, err
	}
	return s.history(ctx, v)
}

func (s *Server) DeleteVolume(ctx context.Context, r DeleteVolumeRequestObject) (DeleteVolumeResponseObject, error) {
	return s.do(ctx, func(ctx context.Context) (submit.Intent, error) {
		v, err := s.volume(ctx, r.ID, r.Name)
		if err != nil {
			return submit.Intent{}, err
		}
		return s.intent(ctx, v, "delete", volume.DeleteData{})
	})
}

func (s *Server) pool(ctx context.Context, text string) (submit.Object, error) {
	return s.Submit.Object(ctx, &pool.Resource, pool.NameScope, text)
}

// volumesOf is the collection of a pool's volumes.
func volumesOf(id uuid.UUID) string { return pool.Resource.Collection + "/" + id.String() + "/volumes" }

// volume names a volume of a pool. One that is given by its id has to be of the pool.
func (s *Server) volume(ctx context.Context, poolText, text string) (ref, error) {
	p, err := s.pool(ctx, poolText)
	if err != nil {
		return ref{}, err
	}
	r := ref{&volume.Resource, volumesOf(p.ID), volume.NameScope(p.ID), text}
	id, err := uuid.Parse(text)
	if err != nil {
		return r, nil
	}
	row, err := s.Model.Find(ctx, volume.Kind, id.String())
	if err != nil || row == nil {
		return r, err
	}
	var v volume.View
	if err := json.Unmarshal(row.Doc, &v); err != nil {
		return ref{}, fmt.Errorf("view of volume %s: %w", id, err)
	}
	if v.Pool != p.ID {
		return ref{}, r.missing()
	}
	return r, nil
}
