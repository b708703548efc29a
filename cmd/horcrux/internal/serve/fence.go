package serve

import (
	"context"
	"time"

	"horcrux/pkg/problem"
)

// fenceLimit is longer than any transaction of ours takes.
const fenceLimit = 10 * time.Second

// fence fails while somebody's transaction keeps recorded events from all readers.
func (s *server) fence(ctx context.Context) error {
	lag, holder, err := s.store.Fence(ctx)
	if err != nil || lag < fenceLimit {
		return err
	}
	return problem.New(problem.Unavailable, "events of the last %s are kept from readers by %s", lag.Round(time.Second), holder)
}
