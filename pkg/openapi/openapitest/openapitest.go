// Package openapitest holds what goes over the wire in a test against the contract.
package openapitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/google/uuid"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// Contract is the document, ready to check against.
type Contract struct {
	doc    *openapi3.T
	router routers.Router
	common []problem.Code
}

// Load reads the document, once for all tests.
func Load(t testing.TB) *Contract {
	t.Helper()
	c, err := load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

var load = sync.OnceValues(func() (*Contract, error) {
	c := &Contract{}
	var err error
	if c.doc, err = openapi3.NewLoader().LoadFromData(openapi.YAML); err != nil {
		return nil, err
	}
	c.common = codes(c.doc.Extensions["x-common-problems"])
	c.router, err = gorillamux.NewRouter(c.doc)
	return c, err
})

func codes(v any) []problem.Code {
	var all []problem.Code
	list, _ := v.([]any)
	for _, code := range list {
		all = append(all, problem.Code(fmt.Sprint(code)))
	}
	return all
}

// Transport passes requests on and fails the test when an answer is not as the document says: a route that is not in
// it, a status, media type, header or field that it does not have, a problem that it does not list for the operation.
// Requests are not looked at, since tests send wrong ones too. next is http.DefaultTransport when nil.
func Transport(t testing.TB, next http.RoundTripper) http.RoundTripper {
	t.Helper()
	if next == nil {
		next = http.DefaultTransport
	}
	return &transport{t, Load(t), next}
}

type transport struct {
	t        testing.TB
	contract *Contract
	next     http.RoundTripper
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := tr.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if err := tr.contract.CheckAnswer(r, resp); err != nil {
		tr.t.Errorf("%s %s: %d: %v", r.Method, r.URL, resp.StatusCode, err)
	}
	return resp, nil
}

// CheckRequest says in what a request differs from the document. The body can be read again afterwards.
func (c *Contract) CheckRequest(r *http.Request) error {
	input, err := c.input(r)
	if err != nil {
		return err
	}
	known := append(slices.Clone(input.Route.PathItem.Parameters), input.Route.Operation.Parameters...)
	for name := range r.URL.Query() {
		if known.GetByInAndName("query", name) == nil {
			return fmt.Errorf("the query parameter %s is not documented", name)
		}
	}
	return openapi3filter.ValidateRequest(r.Context(), input)
}

// CheckAnswer says in what an answer differs from the document. The body can be read again afterwards; that of an event
// stream is not looked at.
func (c *Contract) CheckAnswer(r *http.Request, resp *http.Response) error {
	input, err := c.input(r)
	if errors.Is(err, routers.ErrPathNotFound) || errors.Is(err, routers.ErrMethodNotAllowed) {
		if resp.StatusCode >= http.StatusBadRequest {
			return nil
		}
		return errors.New("the route is not documented")
	}
	if err != nil {
		return err
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: resp.StatusCode, Header: resp.Header, Options: input.Options,
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	if media == "text/event-stream" {
		return nil
	}
	data, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	resp.Body = io.NopCloser(bytes.NewReader(data))
	answer.Body = io.NopCloser(bytes.NewReader(data))
	if media == "text/html" { // kin-openapi has no decoder for pages
		return nil
	}
	if err := openapi3filter.ValidateResponse(r.Context(), answer); err != nil {
		return err
	}
	if media == "application/problem+json" {
		return c.checkProblem(input.Route.Operation, resp.StatusCode, data)
	}
	return nil
}

func (c *Contract) checkProblem(op *openapi3.Operation, status int, data []byte) error {
	var p openapi.Problem
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	listed := append(codes(op.Extensions["x-problems"]), c.common...)
	if planned, _ := op.Extensions["x-not-implemented"].(bool); planned {
		listed = append(listed, problem.NotImplemented)
	}
	if _, optional := op.Extensions["x-feature"]; optional {
		listed = append(listed, problem.FeatureNotBuilt)
	}
	switch {
	case p.Status != status || p.Code.Status() != status || p.Title != p.Code.Title():
		return fmt.Errorf("status %d and title %q are not those of %s", p.Status, p.Title, p.Code)
	case !slices.Contains(listed, p.Code):
		return fmt.Errorf("x-problems of %s does not list %s", op.OperationID, p.Code)
	}
	return nil
}

func (c *Contract) input(r *http.Request) (*openapi3filter.RequestValidationInput, error) {
	route, path, err := c.router.FindRoute(r)
	if err != nil {
		return nil, err
	}
	return &openapi3filter.RequestValidationInput{Request: r, Route: route, PathParams: path, Options: &options}, nil
}

var options = openapi3filter.Options{
	AuthenticationFunc:                openapi3filter.NoopAuthenticationFunc,
	IncludeResponseStatus:             true,
	RejectWhenRequestBodyNotSpecified: true,
	SkipSettingDefaults:               true,
	SchemaValidationOptions: []openapi3.SchemaValidationOption{
		openapi3.WithStringFormatValidators(map[string]openapi3.StringFormatValidator{
			"uuid": openapi3.NewCallbackValidator(func(s string) error { _, err := uuid.Parse(s); return err }),
		}),
	},
}
