// Package openapitest holds the exchanges of a test against the contract.
package openapitest

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"horcrux/pkg/openapi/contract"
)

// Transport passes requests on and fails the test when an answer is not as the document says: an unknown route that is
// answered with success, a status, header, field or code that is not documented. Requests are let through as they are,
// since tests also send wrong ones. next is http.DefaultTransport when nil.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	c, err := contract.New()
	if err != nil {
		t.Fatal(err)
	}
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{t: t, contract: c, next: next}
}

type transport struct {
	t        testing.TB
	contract *contract.Contract
	next     http.RoundTripper
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := tr.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := tr.check(r, resp); err != nil {
		tr.t.Errorf("%s %s: %v", r.Method, r.URL, err)
	}
	return resp, nil
}

func (tr *transport) check(r *http.Request, resp *http.Response) error {
	o, _ := tr.contract.Route(r.Method, r.URL.EscapedPath())
	if o == nil {
		if resp.StatusCode < 400 {
			return fmt.Errorf("answered %d and is not documented", resp.StatusCode)
		}
		return nil
	}
	if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		return o.CheckAnswer(resp.StatusCode, resp.Header, nil)
	}
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if err := resp.Body.Close(); err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	return o.CheckAnswer(resp.StatusCode, resp.Header, data)
}

// CheckRequest fails the test when a client's request is not as the document says.
func CheckRequest(t testing.TB, c *contract.Contract, r *http.Request, body []byte) {
	t.Helper()
	o, escaped := c.Route(r.Method, r.URL.EscapedPath())
	if o == nil {
		t.Errorf("%s %s is not documented", r.Method, r.URL)
		return
	}
	path := map[string]string{}
	for name, value := range escaped {
		plain, err := url.PathUnescape(value)
		if err != nil {
			t.Errorf("%s %s: %v", r.Method, r.URL, err)
		}
		path[name] = plain
	}
	if p := o.CheckParameters(path, r.URL.Query(), r.Header); p != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, p)
	}
	if p := o.CheckBody(r.Header.Get("Content-Type"), body); p != nil {
		t.Errorf("%s %s: %v", r.Method, r.URL, p)
	}
}
