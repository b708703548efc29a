package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/problem"
)

const (
	// callTimeout is how long a call may take besides the seconds that it asks the server to wait.
	callTimeout = 30 * time.Second
	// attempts and firstBackoff, doubled each time, outlast the restart of a server: 6 s in all.
	attempts     = 6
	firstBackoff = 200 * time.Millisecond
)

// doer sends one call, again where that is safe.
type doer struct {
	next    http.RoundTripper
	token   string
	where   string
	backoff time.Duration
}

// Do gives the call a deadline and, when it changes something, an idempotency key, so that it can be sent again after
// the connection broke: the server then answers with what became of it.
func (d *doer) Do(r *http.Request) (*http.Response, error) {
	if d.token != "" {
		r.Header.Set("Authorization", "Bearer "+d.token)
	}
	if r.Method != http.MethodGet && r.Header.Get("Idempotency-Key") == "" {
		r.Header.Set("Idempotency-Key", uuid.NewString())
	}
	var cancel context.CancelFunc = func() {}
	if r.Header.Get("Accept") != eventStream {
		var ctx context.Context
		ctx, cancel = context.WithTimeout(r.Context(), timeout(r))
		r = r.WithContext(ctx)
	}
	resp, err := d.send(r)
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &bodyOf{resp.Body, cancel}
	return resp, nil
}

// bodyOf ends the call's deadline with its body.
type bodyOf struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (b *bodyOf) Close() error {
	defer b.cancel()
	return b.ReadCloser.Close()
}

func timeout(r *http.Request) time.Duration {
	wait, err := strconv.Atoi(r.URL.Query().Get("wait"))
	if err != nil {
		wait = 0 // the server refuses it in its own words
	}
	return callTimeout + time.Duration(wait)*time.Second
}

// send tries until there is an answer that another try would not change. A first try that does not reach the server at
// all is the last one: nobody is there.
func (d *doer) send(r *http.Request) (*http.Response, error) {
	wait := d.backoff
	for attempt := 1; ; attempt++ {
		resp, err := d.try(r)
		if err == nil {
			return resp, nil
		}
		var unreachable *UnreachableError
		broke := errors.As(err, &unreachable) && (attempt > 1 || !isDial(err))
		undecided := errors.Is(err, &problem.Problem{Code: problem.IdempotencyInProgress})
		if attempt == attempts || r.Context().Err() != nil || !broke && !undecided {
			return nil, err
		}
		if !sleep(r.Context(), wait) {
			return nil, err
		}
		wait *= 2
	}
}

func (d *doer) try(r *http.Request) (*http.Response, error) {
	if r.GetBody != nil {
		body, err := r.GetBody()
		if err != nil {
			return nil, err
		}
		r = r.Clone(r.Context())
		r.Body = body
	}
	resp, err := d.next.RoundTrip(r)
	if err != nil {
		return nil, &UnreachableError{Where: d.where, Err: err}
	}
	if resp.StatusCode < http.StatusBadRequest || isReadiness(r, resp) {
		return resp, nil
	}
	return nil, errors.Join(failure(resp), resp.Body.Close())
}

// isReadiness: a server that is not ready says so with 503 and the same body as one that is.
func isReadiness(r *http.Request, resp *http.Response) bool {
	return resp.StatusCode == http.StatusServiceUnavailable && r.URL.Path == "/readyz"
}

// isDial says whether a connection did not come about at all.
func isDial(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
