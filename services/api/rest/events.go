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
// where it was by its Last-Event-ID. Each writes for itself, so none can hold up another.
const (
	heartbeat = 15 * time.Second
	takeTime  = 10 * time.Second
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
			f := follower{Server: s, w: w, control: http.NewResponseController(w), opts: opts, at: after}
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
	at      events.Position // all that is wanted up to here has been sent
	beat    *time.Ticker
}

// errEnded: the caller is gone or too slow, or the server drains.
var errEnded = errors.New("the stream has ended")

func (f *follower) run(ctx context.Context, page eventstore.Page) error {
	f.beat = time.NewTicker(heartbeat)
	defer f.beat.Stop()
	f.w.WriteHeader(http.StatusOK)
	err := f.send([]byte(": the log, from here on\n\n"))
	if err == nil {
		err = f.sendRead(page)
	}
	for err == nil && page.More {
		page, err = f.catchUp(ctx)
	}
	if err == nil {
		leave := f.tail.enter(f.at)
		defer leave()
	}
	for err == nil {
		err = f.step(ctx)
	}
	if errors.Is(err, errEnded) || ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("follow the log: %w", err)
}

// step sends the next page that the tail has, waits for it, or reads what the tail has no more.
func (f *follower) step(ctx context.Context) error {
	kept := f.tail.kept.Load()
	if f.at.Compare(kept.start) < 0 {
		_, err := f.catchUp(ctx)
		return err
	}
	if page := kept.after(f.at); page != nil {
		err := f.send(page.messages(f.at, f.opts))
		f.at = page.end
		return err
	}
	if kept.err != nil {
		return kept.err
	}
	select {
	case <-kept.grown:
		return nil
	case <-f.beat.C:
		return f.send([]byte(": \n\n"))
	case <-f.draining:
	case <-ctx.Done():
	}
	return errEnded
}

// catchUp reads the next page for this stream alone.
func (f *follower) catchUp(ctx context.Context) (eventstore.Page, error) {
	page, err := f.readLog(ctx, f.at, f.opts)
	if err != nil {
		return page, err
	}
	return page, f.sendRead(page)
}

func (f *follower) sendRead(page eventstore.Page) error {
	p, err := encodePage(f.at, page)
	if err != nil {
		return err
	}
	err = f.send(p.text)
	f.at = page.Next
	return err
}

// send writes text to the caller, who has takeTime to take it.
func (f *follower) send(text []byte) error {
	select {
	case <-f.draining:
		return errEnded
	default:
	}
	if len(text) == 0 {
		return nil
	}
	err := f.control.SetWriteDeadline(time.Now().Add(takeTime))
	if err == nil || errors.Is(err, http.ErrNotSupported) {
		_, err = f.w.Write(text)
	}
	if err == nil {
		err = f.control.Flush()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errEnded, err)
	}
	return nil
}
