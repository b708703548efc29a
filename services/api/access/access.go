// Package access says who calls and what they may do. Over the Unix socket the peer's uid decides, over TCP a bearer
// token.
package access

import (
	"context"

	"horcrux/pkg/problem"
)

// Caller is who calls. The zero Caller is nobody.
type Caller struct {
	Actor         string // "uid:0", "token:admin"
	Auth          string // "peer", "token"
	Administrator bool
}

// May fails with unauthenticated for nobody, and with forbidden, naming the privilege, for a caller who lacks it.
func (c Caller) May(privilege string) error {
	switch {
	case c.Actor == "":
		return problem.New(problem.Unauthenticated, "this needs a bearer token, or an administrator on the Unix socket")
	case !c.Administrator: // roles are to come: until then an administrator has every privilege, and nobody else any
		return problem.New(problem.Forbidden, "%s lacks the privilege %s", c.Actor, privilege)
	}
	return nil
}

type callerKey struct{}

// With returns a context of the caller.
func With(ctx context.Context, c Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// From returns the caller of a context; nobody if it has none.
func From(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}
