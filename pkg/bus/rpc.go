package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// answered is what a call comes back with: a result, or why there is none.
type answered struct {
	Result  json.RawMessage  `json:"result,omitempty"`
	Problem *problem.Problem `json:"problem,omitempty"`
}

// Serve answers the calls of a method on this node until ctx ends, Options.Concurrency at once; then it lets those under
// way come to their end. answer is given the request as JSON and has Options.TryTime. A problem that it fails with goes
// to the caller, any other error into the log.
func (b *Bus) Serve(ctx context.Context, domain string, node uuid.UUID, method string, answer func(context.Context, json.RawMessage) (any, error)) error {
	subject := events.RPCSubject(domain, node, method)
	slots := make(chan struct{}, b.Concurrency)
	var running sync.WaitGroup
	calls := make(chan *nats.Msg, b.Window)
	sub, err := b.nc.ChanSubscribe(subject, calls) // one that finds the channel full is not answered
	if err != nil {
		return fmt.Errorf("serve %s: %w", subject, err)
	}
	defer running.Wait()
	defer sub.Unsubscribe() //nolint:errcheck // the connection has ended, and the subscription with it
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-calls:
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			running.Go(func() {
				defer func() { <-slots }()
				b.answer(context.WithoutCancel(ctx), m, answer)
			})
		}
	}
}

func (b *Bus) answer(ctx context.Context, m *nats.Msg, answer func(context.Context, json.RawMessage) (any, error)) {
	ctx, cancel := context.WithTimeout(ctx, b.TryTime)
	defer cancel()
	var out answered
	result, err := answer(ctx, m.Data)
	if err == nil {
		out.Result, err = json.Marshal(result)
	}
	if err != nil {
		if out.Problem = problem.From(err); out.Problem == nil || out.Problem.Code == problem.Internal {
			b.Log.Error("a call failed", "subject", m.Subject, "err", err)
		}
		if out.Problem == nil {
			out.Problem = problem.New(problem.Internal, "something went wrong on the node; its log says what")
		}
	}
	data, err := json.Marshal(out)
	if int64(len(data)) > b.nc.MaxPayload() {
		err = fmt.Errorf("%w: %d bytes", nats.ErrMaxPayload, len(data))
	}
	if err == nil {
		err = m.Respond(data)
	}
	if err != nil {
		b.Log.Warn("a call could not be answered", "subject", m.Subject, "err", err)
	}
}

// Call asks a node and reads its answer into result, which may be nil. It fails with the problem that the node answered,
// and with unavailable where there is no answer. A ctx without deadline gets one.
func (b *Bus) Call(ctx context.Context, domain string, node uuid.UUID, method string, request, result any) error {
	ctx, cancel := context.WithTimeout(ctx, b.TryTime+callTime)
	defer cancel()
	subject := events.RPCSubject(domain, node, method)
	data, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("call %s: %w", subject, err)
	}
	m, err := b.nc.RequestWithContext(ctx, subject, data)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: call %s: %w", problem.New(problem.Unavailable, "the %s service of node %s does not answer", domain, node), subject, err)
	case err != nil:
		return fmt.Errorf("call %s: %w", subject, err)
	}
	var in answered
	if err := json.Unmarshal(m.Data, &in); err != nil {
		return fmt.Errorf("call %s: answer: %w", subject, err)
	}
	if in.Problem != nil {
		return fmt.Errorf("call %s: %w", subject, in.Problem)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(in.Result, result); err != nil {
		return fmt.Errorf("call %s: answer: %w", subject, err)
	}
	return nil
}
