package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"horcrux/pkg/openapi"
)

const (
	eventStream = "text/event-stream"
	// silence is how long a stream may be quiet before it counts as broken: the server sends a comment every 15 s.
	silence = 45 * time.Second
	// longestEvent bounds one line of a stream, in bytes.
	longestEvent = 4 << 20
)

// Follow calls handle with every event after a position, in order, each once, until ctx ends or handle fails. A stream
// that breaks is taken up again after the last event handled. params.After "" begins with the first event.
func (c *Client) Follow(ctx context.Context, params openapi.ListEventsParams, handle func(openapi.Event) error) error {
	broken := 0
	for {
		before := params.After
		err := c.stream(ctx, &params, handle)
		var unreachable *UnreachableError
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !errors.As(err, &unreachable) {
			return err
		}
		if params.After != before {
			broken = 0
		}
		if broken++; broken >= attempts {
			return err
		}
		if !sleep(ctx, c.backoff<<broken) {
			return ctx.Err()
		}
	}
}

// stream reads one stream to its break, which is an *UnreachableError, and keeps in params how far it came.
func (c *Client) stream(ctx context.Context, params *openapi.ListEventsParams, handle func(openapi.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var silent atomic.Bool
	watchdog := time.AfterFunc(c.silence, func() { silent.Store(true); cancel() })
	defer watchdog.Stop()
	resp, err := c.ListEvents(ctx, params, func(_ context.Context, r *http.Request) error {
		r.Header.Set("Accept", eventStream)
		return nil
	})
	if err != nil {
		return err
	}
	err = eachMessage(resp.Body, func() { watchdog.Reset(c.silence) }, func(data string) error {
		var e openapi.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			return fmt.Errorf("%w: event: %w", ErrNotHorcrux, err)
		}
		if err := handle(e); err != nil {
			return err
		}
		position := e.Position.String()
		params.After, params.LastEventID = &position, nil
		return nil
	})
	if silent.Load() {
		err = &UnreachableError{c.where, fmt.Errorf("nothing for %s", c.silence)}
	}
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, errBroken) {
		err = &UnreachableError{c.where, err}
	}
	return err
}

var errBroken = errors.New("the stream broke")

// eachMessage reads server-sent events: alive is called for each line, message with the data of each message.
func eachMessage(r io.Reader, alive func(), message func(data string) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, longestEvent)
	var data []string
	for lines.Scan() {
		alive()
		line := lines.Text()
		if line == "" && len(data) > 0 {
			if err := message(strings.Join(data, "\n")); err != nil {
				return err
			}
			data = nil
		}
		if d, ok := strings.CutPrefix(line, "data:"); ok {
			data = append(data, strings.TrimPrefix(d, " "))
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return fmt.Errorf("%w: %w", errBroken, io.ErrUnexpectedEOF)
}
