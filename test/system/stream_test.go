package system_test

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/test/instance"
)

// stream is an open stream of server-sent events. It is read by the test alone.
type stream struct {
	t      *testing.T
	cancel context.CancelFunc
	body   *http.Response
	lines  *bufio.Scanner
	events []events.Event // so far
}

// openStream follows the log after a position.
func openStream(t *testing.T, i *instance.Instance, after string) *stream {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://horcrux/api/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", after)
	res, err := i.HTTP.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if media := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || media != "text/event-stream" {
		t.Fatalf("event stream: %d %s", res.StatusCode, media)
	}
	return &stream{t: t, cancel: cancel, body: res, lines: bufio.NewScanner(res.Body)}
}

// next reads one event; false at the end of the stream.
func (s *stream) next() bool {
	s.t.Helper()
	fields := map[string]string{}
	for s.lines.Scan() {
		name, value, _ := strings.Cut(s.lines.Text(), ": ")
		if fields[name] = value; s.lines.Text() != "" || fields["data"] == "" {
			continue
		}
		var e events.Event
		if err := json.Unmarshal([]byte(fields["data"]), &e); err != nil {
			s.t.Fatalf("event: %v: %q", err, fields["data"])
		}
		if fields["id"] != e.Position.String() || fields["event"] != e.Type {
			s.t.Errorf("id %s and event %s of %s at %s", fields["id"], fields["event"], e.Type, e.Position)
		}
		s.events = append(s.events, e)
		return true
	}
	return false
}

// until reads up to an event of a type.
func (s *stream) until(kind string) {
	s.t.Helper()
	for s.next() {
		if s.events[len(s.events)-1].Type == kind {
			return
		}
	}
	s.t.Fatalf("the stream ended before %s: %v", kind, s.lines.Err())
}

// end reads to the end, which somebody else makes.
func (s *stream) end() {
	for s.next() {
	}
}

// close ends the stream.
func (s *stream) close() {
	s.cancel()
	s.end()
}
