// Package client speaks to a Horcrux server. The methods for the operations are generated from the OpenAPI document;
// what is written here finds the server, authenticates, retries what is safe to retry, gives every call a deadline,
// and makes errors of problems.
package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// Client has one method for each operation of the contract. A method fails with an *Error when the server answered a
// problem, and with an *UnreachableError when it did not answer. Decode reads the answer.
type Client struct {
	*API
	where     string
	base      string // of URLs
	token     string
	transport *http.Transport
	backoff   time.Duration
	silence   time.Duration
}

// New returns a client of the server at a place; it sends nothing yet.
func New(place Place) (*Client, error) {
	transport, base, err := place.transport()
	if err != nil {
		return nil, err
	}
	doer := &doer{next: transport, token: place.Token, where: place.String(), backoff: firstBackoff}
	if place.Wrap != nil {
		doer.next = place.Wrap(transport)
	}
	api, err := NewClient(base, WithHTTPClient(doer))
	if err != nil {
		return nil, err
	}
	return &Client{API: api, where: place.String(), base: strings.TrimSuffix(base, "/"), token: place.Token, transport: transport, backoff: firstBackoff, silence: silence}, nil
}

// Where is the server's address, for a person.
func (c *Client) Where() string { return c.where }

// Close gives up the connections that are kept for further calls.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Error is a problem that the server answered.
type Error struct {
	*problem.Problem
	Trace string // of the request in the server's log; may be ""
}

// Unwrap lets errors.As and errors.Is find the problem.
func (e *Error) Unwrap() error { return e.Problem }

// UnreachableError says that the server did not answer. What was asked may or may not have happened.
type UnreachableError struct {
	Where string
	Err   error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v", e.Where, e.Err)
}

// Unwrap returns what went wrong with the connection.
func (e *UnreachableError) Unwrap() error { return e.Err }

// ErrNotHorcrux: whatever answered does not speak the contract.
var ErrNotHorcrux = errors.New("the answer is not one of a Horcrux server")

// Decode reads the JSON answer of a call: Decode[openapi.VM](c.GetVM(ctx, id, nil)).
func Decode[T any](resp *http.Response, err error) (T, error) {
	var v T
	if err != nil {
		return v, err
	}
	decodeErr := json.NewDecoder(resp.Body).Decode(&v)
	if err := errors.Join(decodeErr, resp.Body.Close()); err != nil {
		return v, fmt.Errorf("%w: %w", ErrNotHorcrux, err)
	}
	return v, nil
}

// failure makes an error of an answer of status 400 or more.
func failure(resp *http.Response) error {
	var p openapi.Problem
	if err := json.NewDecoder(resp.Body).Decode(&p); err != nil || p.Code == "" {
		return fmt.Errorf("%w: status %s", ErrNotHorcrux, resp.Status)
	}
	e := &Error{Problem: &problem.Problem{Code: p.Code, Detail: p.Detail, Fields: p.Fields}}
	if p.Operation != nil {
		e.Operation = p.Operation.String()
	}
	if p.Trace != nil {
		e.Trace = *p.Trace
	}
	return e
}
