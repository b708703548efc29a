package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi/openapitest"
)

// lines ends a command when it has printed so many lines.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	left int
	done func()
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.left -= bytes.Count(p, []byte("\n")); l.left == 0 {
		l.done()
	}
	return l.buf.Write(p)
}

// A stream that breaks is taken up where it broke; the first begins where the log ends.
func TestEventsFollow(t *testing.T) {
	var mu sync.Mutex
	var after []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/operations" {
			w.Header().Set("Content-Type", "application/json")
			if err := json.NewEncoder(w).Encode(onePage[operation.View]()); err != nil {
				t.Error(err)
			}
			return
		}
		mu.Lock()
		after = append(after, r.URL.Query().Get("after"))
		n := int64(len(after))
		mu.Unlock()
		w.Header().Set("Content-Type", "text/event-stream")
		data, err := json.Marshal(anEvent(n))
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(w, ": hello\n\nid: %s\nevent: vm.started\ndata: %s\n\n", anEvent(n).Position, data)
	}))
	defer server.Close()
	a := &app{
		getenv: func(k string) string { return map[string]string{"HORCRUX_URL": server.URL}[k] },
		wrap:   func(next http.RoundTripper) http.RoundTripper { return openapitest.Transport(t, next) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &lines{left: 2, done: cancel}
	var errs bytes.Buffer
	root := a.root()
	root.SetOut(out)
	root.SetErr(&errs)
	if code := Run(ctx, root, []string{"events", "--follow", "-o", "name"}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	first, second := anEvent(1).Position.String(), anEvent(2).Position.String()
	if got := out.buf.String(); got != first+"\n"+second+"\n" {
		t.Errorf("printed %q", got)
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(after[:2], " "); got != "AAEB "+first {
		t.Errorf("asked after %q", got)
	}
}
