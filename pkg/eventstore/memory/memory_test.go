package memory_test

import (
	"testing"
	"time"

	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/eventstore/storetest"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(_ *testing.T, clock func() time.Time) eventstore.Store { return memory.New(clock) })
}
