package instance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// Answer is a response with its body read.
type Answer struct {
	*http.Response
	Bytes []byte
}

// Try sends a request; body is a string, or marshalled. It fails only when there is no answer.
func (i *Instance) Try(method, path string, body any, header ...string) (Answer, error) {
	var b []byte
	switch v := body.(type) {
	case nil:
	case string:
		b = []byte(v)
	default:
		var err error
		if b, err = json.Marshal(v); err != nil {
			return Answer{}, err
		}
	}
	req, err := http.NewRequest(method, "http://horcrux"+path, bytes.NewReader(b))
	if err != nil {
		return Answer{}, err
	}
	if b != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for j := 0; j+1 < len(header); j += 2 {
		req.Header.Set(header[j], header[j+1])
	}
	res, err := i.HTTP.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(res.Body)
	if err != nil {
		return Answer{}, err
	}
	if i.Check != nil {
		res.Body = io.NopCloser(bytes.NewReader(out))
		if err := i.Check(req, res); err != nil {
			return Answer{}, fmt.Errorf("%s %s is not as the contract says: %w\n%s", method, path, err, out)
		}
	}
	return Answer{res, out}, nil
}

// Do is Try that must be answered.
func (i *Instance) Do(method, path string, body any, header ...string) Answer {
	i.T.Helper()
	a, err := i.Try(method, path, body, header...)
	if err != nil {
		i.T.Fatal(err)
	}
	return a
}

// Get reads a JSON answer into v, which must come with 200.
func (i *Instance) Get(path string, v any) {
	i.T.Helper()
	a := i.Do("GET", path, nil)
	if a.StatusCode != http.StatusOK {
		i.T.Fatalf("GET %s: %d %s", path, a.StatusCode, a.Bytes)
	}
	if err := json.Unmarshal(a.Bytes, v); err != nil {
		i.T.Fatalf("GET %s: %v\n%s", path, err, a.Bytes)
	}
}

// Readiness is what /readyz says of each dependency.
func (i *Instance) Readiness() map[string]bool {
	i.T.Helper()
	var all openapi.Readiness
	if a := i.Do("GET", "/readyz", nil); json.Unmarshal(a.Bytes, &all) != nil {
		i.T.Fatalf("/readyz: %d %s", a.StatusCode, a.Bytes)
	}
	ready := map[string]bool{}
	for _, d := range all.Dependencies {
		ready[d.Name] = d.Ready
	}
	return ready
}

// Must sends a mutation with wait and wants its operation to have succeeded.
func (i *Instance) Must(method, path string, body any, header ...string) operation.View {
	i.T.Helper()
	op := i.Operation(method, path, body, header...)
	if op.State != operation.StateSucceeded {
		i.T.Fatalf("%s %s: %s %+v", method, path, op.State, op.Error)
	}
	return op
}

// Operation sends a mutation with wait and returns its operation.
func (i *Instance) Operation(method, path string, body any, header ...string) operation.View {
	i.T.Helper()
	sep := "?"
	if strings.Contains(path, "?") {
		sep = "&"
	}
	a := i.Do(method, path+sep+"wait=60", body, header...)
	if a.StatusCode != http.StatusOK {
		i.T.Fatalf("%s %s: %d %s", method, path, a.StatusCode, a.Bytes)
	}
	return i.view(a)
}

func (i *Instance) view(a Answer) operation.View {
	i.T.Helper()
	var op operation.View
	if err := json.Unmarshal(a.Bytes, &op); err != nil {
		i.T.Fatalf("%v: %s", err, a.Bytes)
	}
	return op
}

// Problem sends a request that must be answered with a problem.
func (i *Instance) Problem(method, path string, body any, header ...string) (int, problem.Problem) {
	i.T.Helper()
	a := i.Do(method, path, body, header...)
	var p problem.Problem
	if err := json.Unmarshal(a.Bytes, &p); err != nil || a.Header.Get("Content-Type") != "application/problem+json" {
		i.T.Fatalf("%s %s: not a problem: %d %s", method, path, a.StatusCode, a.Bytes)
	}
	return a.StatusCode, p
}

// Eventually waits until ok holds.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}
