package bus_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

func TestQuestions(t *testing.T) {
	s := bustest.Server(t)
	node, gateway := bustest.On(t, s, bus.Options{}), bustest.On(t, s, bus.Options{})
	subject := events.RPCSubject("compute", uuid.New(), "echo")
	ask := func(ctx context.Context, question string) (string, error) {
		answer, err := gateway.Inquire(ctx, subject, []byte(question))
		return string(answer), err
	}
	if _, err := ask(t.Context(), "1"); !errors.Is(err, bus.ErrNoAnswer) {
		t.Errorf("nobody is there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	hang := make(chan struct{})
	wg.Go(func() {
		if err := node.Serve(ctx, subject, func(ctx context.Context, q []byte) ([]byte, error) {
			switch string(q) {
			case "problem":
				return nil, problem.Invalid(problem.Field{Field: "vm", Detail: "is none"})
			case "secret":
				return nil, errors.New("secret")
			case "long":
				return make([]byte, 64<<20), nil
			case "hang":
				close(hang)
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return q, nil
		}); err != nil {
			t.Error(err)
		}
	})
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if a, err := ask(t.Context(), "1"); err == nil && a == "1" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("%q, %v", a, err)
		}
	}
	t.Run("many at a time get their own", func(t *testing.T) {
		var all sync.WaitGroup
		for i := range 100 {
			all.Go(func() {
				want := string(rune('a' + i))
				if a, err := ask(t.Context(), want); err != nil || a != want {
					t.Errorf("asked %q: %q, %v", want, a, err)
				}
			})
		}
		all.Wait()
	})
	t.Run("a problem arrives whole", func(t *testing.T) {
		_, err := ask(t.Context(), "problem")
		if p := problem.From(err); p == nil || p.Code != problem.InvalidValue || len(p.Fields) != 1 || p.Fields[0].Field != "vm" {
			t.Errorf("%+v", err)
		}
	})
	t.Run("other errors are not told", func(t *testing.T) {
		for _, q := range []string{"secret", "long"} {
			_, err := ask(t.Context(), q)
			if p := problem.From(err); p == nil || p.Code != problem.Internal || p.Error() == "secret" {
				t.Errorf("%s: %v", q, err)
			}
		}
	})
	t.Run("who is silent is not waited for beyond the deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := ask(ctx, "hang"); !errors.Is(err, bus.ErrNoAnswer) {
			t.Errorf("got %v", err)
		}
		<-hang
		if a, err := ask(t.Context(), "2"); err != nil || a != "2" {
			t.Errorf("afterwards %q, %v", a, err)
		}
	})
}
