package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/problem"
)

func TestCall(t *testing.T) {
	s := bustest.Server(t)
	here, there := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{TryTime: 200 * time.Millisecond})
	node := uuid.New()
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := there.Serve(ctx, "compute", node, "greet", func(ctx context.Context, request json.RawMessage) (any, error) {
			var name string
			if err := json.Unmarshal(request, &name); err != nil {
				return nil, err
			}
			switch name {
			case "nobody":
				return nil, problem.New(problem.NotFound, "there is no such person")
			case "secret":
				return nil, errors.New("the driver's own words")
			case "slow":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return "hello " + name, nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	greet := func(name string) (got string, err error) {
		err = here.Call(within(t, 10*time.Second), "compute", node, "greet", name, &got)
		return got, err
	}
	eventually(t, "somebody answers", func() bool { _, err := greet("me"); return err == nil })
	if got, err := greet("you"); got != "hello you" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	for name, code := range map[string]problem.Code{"nobody": problem.NotFound, "secret": problem.Internal, "slow": problem.Internal} {
		_, err := greet(name)
		if p := problem.From(err); p == nil || p.Code != code || p.Detail == "the driver's own words" {
			t.Errorf("%s: %v", name, err)
		}
	}
	stop()
	wg.Wait()
	if _, err := greet("you"); !errors.Is(err, &problem.Problem{Code: problem.Unavailable}) {
		t.Errorf("when nobody is there: %v", err)
	}
}
