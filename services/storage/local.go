package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	poolwire "horcrux/pkg/events/pool"
	volumewire "horcrux/pkg/events/volume"
	"horcrux/pkg/problem"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/pool"
	"horcrux/services/storage/volume"
)

const (
	lookEach   = 5 * time.Second  // how long Ready may be behind while the pool can be used
	lookAgain  = time.Second      // and while it cannot
	lookTime   = 10 * time.Second // one look
	loadAtOnce = 100              // volumes
)

// keepLocal makes the pool local at the first start, and looks after it for as long as ctx lasts.
func (s *Service) keepLocal(ctx context.Context) {
	defined := false
	for {
		err := s.lookLocal(ctx, &defined)
		if ctx.Err() != nil {
			return
		}
		pause := lookEach
		if err != nil {
			pause = lookAgain
			s.localDown(err)
		} else if s.down.Swap(nil) != nil {
			s.Log.Info("the pool can be used", "pool", LocalName, "path", s.LocalPath)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.look:
		case <-time.After(pause):
		}
	}
}

// lookSoon has the pool looked at now, since something was seen to be wrong.
func (s *Service) lookSoon() {
	select {
	case s.look <- struct{}{}:
	default: // asked for already
	}
}

// localDown notes that the pool local cannot be used, and logs it once.
func (s *Service) localDown(err error) {
	down := error(problem.New(problem.StorageUnavailable, "the pool %s cannot be used; the log says why", LocalName))
	if old := s.down.Swap(&down); old == nil || (*old).Error() != down.Error() {
		s.Log.Warn("the pool cannot be used", "pool", LocalName, "path", s.LocalPath, "err", err)
	}
}

// lookLocal asks the pool for a sign of life, after it has defined it.
func (s *Service) lookLocal(ctx context.Context, defined *bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	want := pool.Pool{Defined: poolwire.Defined{Name: LocalName, Type: LocalType, Path: s.LocalPath, Node: s.Node}}
	b, err := s.open(LocalID(s.Node), want)
	if err != nil {
		return err
	}
	if !*defined {
		if err := s.defineLocal(ctx, b, want); err != nil {
			return fmt.Errorf("define pool: %w", err)
		}
		*defined = true
	}
	if _, err := b.Usage(ctx); err != nil {
		return err
	}
	if !s.orphans.Swap(false) {
		return nil
	}
	undecided, err := s.clearOrphans(ctx, b)
	if undecided || err != nil {
		s.orphans.Store(true)
	}
	if err != nil {
		return fmt.Errorf("clear what failed creates left: %w", err)
	}
	return nil
}

// defineLocal makes the pool where it is not known, and follows it where its directory moved. Only an unknown pool is
// ever made; a known one that is not there has to come back.
func (s *Service) defineLocal(ctx context.Context, b backend.Backend, want pool.Pool) error {
	id := LocalID(s.Node)
	known, err := s.pool(ctx, id)
	if errors.Is(err, errNoPool) {
		err = s.Drivers[want.Type].Init(ctx, backend.Pool{ID: id, Path: want.Path})
	}
	if err != nil {
		return err
	}
	if known.Exists && known.Path == want.Path {
		return nil
	}
	if _, err := b.Usage(ctx); err != nil {
		return err
	}
	_, err = engine.Observe(ctx, s.engine, s.pools, id, "found", pool.Define{Defined: want.Defined})
	return err
}

// clearOrphans removes volumes whose create has failed. It touches no volume that ever was available, and none that
// the store does not know. undecided says that some are still being created, and may yet fail.
func (s *Service) clearOrphans(ctx context.Context, b backend.Backend) (undecided bool, err error) {
	volumes, err := b.Volumes(ctx)
	if err != nil {
		return false, err
	}
	for some := range slices.Chunk(volumes, loadAtOnce) {
		streams := make([]events.Stream, len(some))
		for i, v := range some {
			streams[i] = events.NewStream(volumewire.Kind, v.ID)
		}
		histories, err := s.Store.Load(ctx, streams...)
		if err != nil {
			return undecided, err
		}
		for i, h := range histories {
			v, err := volume.Decider.Fold(volumewire.Codec, h)
			if err != nil {
				return undecided, err
			}
			undecided = undecided || v.Phase == volume.Creating
			if v.Phase != volume.Ended || v.Made {
				continue
			}
			if err := b.Delete(ctx, some[i].ID); err != nil {
				return undecided, err
			}
			s.Log.Info("removed what a failed create left", "volume", some[i].ID)
		}
	}
	return undecided, nil
}
