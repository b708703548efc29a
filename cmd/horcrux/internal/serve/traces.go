package serve

import (
	"context"

	"horcrux/cmd/horcrux/internal/build"
	"horcrux/cmd/horcrux/internal/otlp"
	"horcrux/pkg/trace"
)

// traces has spans recorded where there is somebody to take them.
func (s *server) traces(ctx context.Context) error {
	to, err := otlp.URL(s.config.OTLP.Endpoint, s.config.OTLP.Traces)
	if err != nil || to == "" {
		return err
	}
	x, err := otlp.Start(ctx, otlp.Options{
		URL: to, Version: build.Version, Node: s.node.String(), Name: s.nodeName(), Log: s.log.With("part", "traces"),
	})
	if err != nil {
		return err
	}
	trace.Record(x.Provider())
	s.seen = append(s.seen, x)
	s.stack.push("traces", func(ctx context.Context) error {
		trace.Record(nil)
		x.Stop(ctx)
		return nil
	})
	return nil
}
