package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/api/readmodel"
)

// ListEvents implements StrictServerInterface: a page of the log, or the log as it goes on.
func (s *Server) ListEvents(ctx context.Context, r ListEventsRequestObject) (ListEventsResponseObject, error) {
	from := or(r.Params.After, "")
	field := "query.after"
	if r.Params.LastEventID != nil {
		from, field = *r.Params.LastEventID, "header.Last-Event-ID"
	}
	after, err := position(field, from)
	if err != nil {
		return nil, err
	}
	until, err := position("query.min_position", or(r.Params.MinPosition, ""))
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.asTold(ctx, operation.Kind), s.recorded(ctx, until)); err != nil { // what is projected can be read
		return nil, err
	}
	opts := eventstore.ReadOptions{
		Types: r.Params.Type, Stream: events.Stream(or(r.Params.Stream, "")), Limit: or(r.Params.Limit, readmodel.DefaultLimit),
	}
	if callOf(ctx).streams() {
		return s.follow(ctx, after, opts)
	}
	page, err := s.Store.Read(ctx, after, opts)
	if err != nil {
		return nil, err
	}
	out := struct {
		Items    []events.Event  `json:"items"`
		Next     *string         `json:"next"`
		Position events.Position `json:"position"`
	}{Items: page.Events, Position: page.Next}
	if out.Items == nil {
		out.Items = []events.Event{}
	}
	if page.More {
		next := page.Next.String()
		out.Next = &next
	}
	body, err := json.Marshal(out)
	return document(body, page.Next), err
}

// recorded waits for the log to be readable up to a position.
func (s *Server) recorded(ctx context.Context, pos events.Position) error {
	ctx, cancel := context.WithTimeout(ctx, positionTime)
	defer cancel()
	for {
		moved := s.Model.Moved()
		end, err := s.Store.End(ctx)
		if err != nil || end.Compare(pos) >= 0 {
			return err
		}
		if _, err := s.Store.Read(ctx, pos, eventstore.ReadOptions{Limit: 1}); err != nil {
			return err
		}
		select {
		case <-moved:
		case <-time.After(logPoll):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", readmodel.ErrBehind, context.Cause(ctx))
		}
	}
}

// Times of an event stream. A watcher who does not take what is written to it in time is disconnected; it resumes
// where it was by its Last-Event-ID. Each reads the log for itself, so none can hold up another.
const (
	heartbeat = 15 * time.Second
	takeTime  = 10 * time.Second
	logPoll   = 250 * time.Millisecond
	eventPage = 256
)

// follow sends events as they are recorded, until the caller goes away or the server drains.
func (s *Server) follow(ctx context.Context, after events.Position, opts eventstore.ReadOptions) (answer, error) {
	opts.Limit = eventPage
	page, err := s.readLog(ctx, after, opts) // what is wrong with the request is a problem, not a broken stream
	if err != nil {
		return answer{}, err
	}
	select {
	case s.watchers <- struct{}{}:
	default:
		return answer{}, problem.New(problem.TooManyRequests, "%d event streams are open, which is the most", cap(s.watchers))
	}
	return answer{
		header: map[string]string{"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"},
		stream: func(w http.ResponseWriter) error {
			defer func() { <-s.watchers }()
			s.metrics.watchers.Inc()
			defer s.metrics.watchers.Dec()
			f := follower{Server: s, w: w, control: http.NewResponseController(w), opts: opts}
			return f.run(ctx, page)
		},
	}, nil
}

// readLog reads a page for a request that has no deadline of its own.
func (s *Server) readLog(ctx context.Context, after events.Position, opts eventstore.ReadOptions) (eventstore.Page, error) {
	ctx, cancel := context.WithTimeout(ctx, takeTime)
	defer cancel()
	return s.Store.Read(ctx, after, opts)
}

// follower is one open event stream.
type follower struct {
	*Server
	w       http.ResponseWriter
	control *http.ResponseController
	opts    eventstore.ReadOptions
}

func (f *follower) run(ctx context.Context, page eventstore.Page) error {
	f.w.WriteHeader(http.StatusOK)
	if err := f.send(": the log, from here on\n\n"); err != nil {
		return nil //nolint:nilerr // the caller is gone
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	poll := time.NewTicker(logPoll)
	defer poll.Stop()
	for {
		moved := f.Model.Moved()
		text, err := messages(page.Events)
		if err != nil {
			return err
		}
		if text != "" {
			if err := f.send(text); err != nil {
				return nil //nolint:nilerr // the caller is gone, or too slow
			}
		}
		if !page.More {
			select {
			case <-ctx.Done():
				return nil
			case <-f.draining:
				return nil
			case <-beat.C:
				if err := f.send(": \n\n"); err != nil {
					return nil //nolint:nilerr // the caller is gone
				}
			case <-moved:
			case <-poll.C:
			}
		}
		page, err = f.readLog(ctx, page.Next, f.opts)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("follow the log: %w", err)
		}
	}
}

// send writes text to the caller, who has takeTime to take it.
func (f *follower) send(text string) error {
	if err := f.control.SetWriteDeadline(time.Now().Add(takeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := f.w.Write([]byte(text)); err != nil {
		return err
	}
	return f.control.Flush()
}

// messages are events in the form of server-sent events.
func messages(page []events.Event) (string, error) {
	var b []byte
	for _, e := range page {
		data, err := json.Marshal(e) // one line
		if err != nil {
			return "", err
		}
		b = fmt.Appendf(b, "id: %s\nevent: %s\ndata: %s\n\n", e.Position, e.Type, data)
	}
	return string(b), nil
}
