package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"horcrux/pkg/problem"
)

// Bounds of questions and answers over core NATS.
const (
	answerTime = 10 * time.Second // for one answer
	answers    = 16               // under way on one subject
	unanswered = 256              // questions that wait; those beyond are lost, as all on core NATS may be
)

// problemHeader marks an answer that is a problem.
const problemHeader = "Horcrux-Problem"

// ErrNoAnswer: nobody answers there, or not in time.
var ErrNoAnswer = errors.New("no answer")

// Answer is a service's answer to a question, both JSON. What it fails with reaches the asker as a problem.
type Answer func(ctx context.Context, question []byte) ([]byte, error)

// Serve answers the questions on a subject of events.RPCSubject until ctx ends, some at a time.
func (b *Bus) Serve(ctx context.Context, subject string, answer Answer) error {
	questions := make(chan *nats.Msg, unanswered)
	sub, err := b.nc.ChanSubscribe(subject, questions)
	if err != nil {
		return fmt.Errorf("serve %s: %w", subject, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection has ended, and the subscription with it
	var wg sync.WaitGroup
	defer wg.Wait()
	for range answers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case m := <-questions:
					b.answer(ctx, m, answer)
				}
			}
		})
	}
	<-ctx.Done()
	return nil
}

// answer answers one question.
func (b *Bus) answer(ctx context.Context, m *nats.Msg, answer Answer) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	reply := &nats.Msg{}
	var err error
	if reply.Data, err = answer(ctx, m.Data); err == nil && int64(len(reply.Data)) > b.nc.MaxPayload() {
		err = fmt.Errorf("an answer of %d bytes", len(reply.Data))
	}
	if err != nil {
		p := problem.From(err)
		if p == nil {
			b.Log.Error("a question without an answer", "subject", m.Subject, "err", err)
			p = problem.New(problem.Internal, "the node could not answer; its log says why")
		}
		reply.Header = nats.Header{problemHeader: {string(p.Code)}}
		if reply.Data, err = json.Marshal(p); err != nil {
			b.Log.Error("a problem that cannot be told", "subject", m.Subject, "err", err)
			return
		}
	}
	if err := m.RespondMsg(reply); err != nil {
		b.Log.Warn("answer", "subject", m.Subject, "err", err)
	}
}

// Inquire asks on a subject and waits for the answer until ctx ends, at most answerTime. It fails with the problem that
// the service answered, or with ErrNoAnswer.
func (b *Bus) Inquire(ctx context.Context, subject string, question []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	m, err := b.nc.RequestWithContext(ctx, subject, question)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("ask %s: %w", subject, ErrNoAnswer)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	case m.Header.Get(problemHeader) == "":
		return m.Data, nil
	}
	p := &problem.Problem{}
	if err := json.Unmarshal(m.Data, p); err != nil {
		return nil, fmt.Errorf("ask %s: a problem that cannot be read: %w", subject, err)
	}
	return nil, p
}
