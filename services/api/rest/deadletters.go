package rest

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/openapi"
	"horcrux/services/api/access"
)

// DeadLetters is what the administrator does with commands that no service could handle.
type DeadLetters interface {
	List(ctx context.Context) ([]bus.DeadLetter, error)
	Show(ctx context.Context, seq uint64) (bus.DeadLetter, error)
	Retry(ctx context.Context, seq uint64) (bus.DeadLetter, error)
	Drop(ctx context.Context, seq uint64, actor string) (bus.DeadLetter, error)
}

func (s *Server) ListDeadLetters(ctx context.Context, _ ListDeadLettersRequestObject) (ListDeadLettersResponseObject, error) {
	letters, err := s.DeadLetters.List(ctx)
	if err != nil {
		return nil, err
	}
	out := openapi.DeadLetterList{Items: make([]openapi.DeadLetter, len(letters))}
	for i, d := range letters {
		out.Items[i] = deadLetter(d)
	}
	return value(out)
}

func (s *Server) GetDeadLetter(ctx context.Context, r GetDeadLetterRequestObject) (GetDeadLetterResponseObject, error) {
	return oneLetter(s.DeadLetters.Show(ctx, uint64(r.Sequence)))
}

func (s *Server) RetryDeadLetter(ctx context.Context, r RetryDeadLetterRequestObject) (RetryDeadLetterResponseObject, error) {
	return oneLetter(s.DeadLetters.Retry(ctx, uint64(r.Sequence)))
}

func (s *Server) DropDeadLetter(ctx context.Context, r DropDeadLetterRequestObject) (DropDeadLetterResponseObject, error) {
	return oneLetter(s.DeadLetters.Drop(ctx, uint64(r.Sequence), access.From(ctx).Actor))
}

func oneLetter(d bus.DeadLetter, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	return value(deadLetter(d))
}

func deadLetter(d bus.DeadLetter) openapi.DeadLetter {
	out := openapi.DeadLetter{Sequence: int64(d.Seq), At: d.At.UTC(), Reason: d.Reason, Detail: d.Detail, Subject: d.Subject}
	if d.Command == nil {
		return out
	}
	out.Type, out.Command = &d.Command.Type, &d.Command.ID
	if op := d.Command.Meta.Operation; op != uuid.Nil {
		out.Operation = &op
	}
	return out
}
