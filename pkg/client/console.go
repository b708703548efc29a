package client

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"github.com/coder/websocket"
)

// Console is an open console of a virtual machine. One goroutine may read while another writes.
type Console struct {
	ws      *websocket.Conn
	ctx     context.Context
	message io.Reader // that has begun
}

// ConsoleEnd says that the server closed a console, and why.
type ConsoleEnd struct {
	Reason  string
	Orderly bool // what was said is complete
}

func (e *ConsoleEnd) Error() string { return "the console was closed: " + e.Reason }

// OpenScreen opens the screen of a virtual machine, for RFB.
func (c *Client) OpenScreen(ctx context.Context, vm string, readOnly bool) (*Console, error) {
	return c.openConsole(ctx, "/api/vms/"+url.PathEscape(vm)+"/console", readOnly)
}

// OpenSerial opens the serial console of a virtual machine.
func (c *Client) OpenSerial(ctx context.Context, vm string, readOnly bool) (*Console, error) {
	return c.openConsole(ctx, "/api/vms/"+url.PathEscape(vm)+"/serial", readOnly)
}

// openConsole opens a WebSocket, which lasts no longer than ctx.
func (c *Client) openConsole(ctx context.Context, path string, readOnly bool) (*Console, error) {
	dialing, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	header := http.Header{}
	if c.token != "" {
		header.Set("Authorization", "Bearer "+c.token)
	}
	ws, resp, err := websocket.Dial(dialing, c.base+path+"?read_only="+strconv.FormatBool(readOnly), &websocket.DialOptions{ //nolint:bodyclose // the connection has it, or it has been read
		HTTPClient: &http.Client{Transport: c.transport}, HTTPHeader: header,
	})
	switch {
	case err == nil:
		ws.SetReadLimit(-1) // it is read piece by piece
		return &Console{ws: ws, ctx: ctx}, nil
	case resp != nil && resp.StatusCode >= http.StatusBadRequest:
		return nil, failure(resp)
	}
	return nil, &UnreachableError{Where: c.where, Err: err}
}

// Read implements io.Reader. It fails with a *ConsoleEnd when the server has closed the console.
func (c *Console) Read(b []byte) (int, error) {
	for {
		if c.message == nil {
			_, r, err := c.ws.Reader(c.ctx)
			if err != nil {
				return 0, explainEnd(err)
			}
			c.message = r
		}
		n, err := c.message.Read(b)
		if errors.Is(err, io.EOF) { // of this message
			c.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, explainEnd(err)
		}
	}
}

func explainEnd(err error) error {
	var closed websocket.CloseError
	if errors.As(err, &closed) {
		return &ConsoleEnd{Reason: closed.Reason, Orderly: closed.Code == websocket.StatusNormalClosure}
	}
	return err
}

// Write implements io.Writer.
func (c *Console) Write(b []byte) (int, error) {
	if err := c.ws.Write(c.ctx, websocket.MessageBinary, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close ends the console and wakes who reads it.
func (c *Console) Close() error { return c.ws.Close(websocket.StatusNormalClosure, "") }
