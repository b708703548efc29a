//nolint:bodyclose // Decode closes the body of every answer
package client

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/openapi"
)

// Wait returns an operation when it has ended. report, if not nil, is told of each state seen, once a second.
func (c *Client) Wait(ctx context.Context, id uuid.UUID, report func(openapi.Operation)) (openapi.Operation, error) {
	seconds := 60
	if report != nil {
		seconds = 1
	}
	for {
		op, err := Decode[openapi.Operation](c.GetOperation(ctx, id, &openapi.GetOperationParams{Wait: &seconds}))
		if err != nil {
			return op, err
		}
		if report != nil {
			report(op)
		}
		if op.State.Ended() {
			return op, nil
		}
	}
}
