package pool_test

import (
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/pool"
)

func TestGolden(t *testing.T) {
	eventstest.Golden(t, pool.Codec, []eventstest.Case{{
		Type: "pool.defined",
		Event: pool.Defined{
			Name: "local", Type: "dir", Path: "/var/lib/horcrux/volumes", Options: map[string]string{},
			Node: uuid.MustParse("01900000-0000-7000-8000-000000000001"),
		},
		Data: `{"name":"local","type":"dir","path":"/var/lib/horcrux/volumes","options":{},"node":"01900000-0000-7000-8000-000000000001"}`,
	}})
}
