package trace

import (
	"context"
	"log/slog"

	"github.com/google/uuid"
)

// Handler adds to each record the trace and the operation that its context belongs to.
func Handler(to slog.Handler) slog.Handler { return handler{to} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id := ID(ctx); id != "" {
		r.AddAttrs(slog.String("trace", id))
	}
	if id, ok := ctx.Value(operationKey{}).(uuid.UUID); ok {
		r.AddAttrs(slog.String("operation", id.String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
