package fake_test

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/backendtest"
	"horcrux/services/storage/backend/fake"
)

func TestConformance(t *testing.T) {
	backendtest.Run(t, func(t *testing.T) backendtest.Place {
		world := &fake.World{Images: map[string]int64{"/images/base": backendtest.MiB}}
		pool := backend.Pool{ID: events.NewID(), Path: "/pool"}
		return backendtest.Place{
			Driver: world, Pool: pool, Image: "/images/base",
			Vanish: func(*testing.T) { world.Vanish(pool.ID) },
		}
	})
}
