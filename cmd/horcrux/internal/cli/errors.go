package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
)

// Exit codes of what is not a problem of the catalogue.
const (
	exitOther       = 1
	exitUsage       = 2
	exitUnavailable = 6
	exitUnwell      = 9
)

// failedError: an operation ended otherwise than well.
type failedError struct{ op openapi.Operation }

func (e *failedError) Error() string {
	return fmt.Sprintf("operation %s %s", e.op.ID, e.op.State)
}

func (e *failedError) problem() *problem.Problem {
	if e.op.Error != nil {
		return &e.op.Error.Problem
	}
	return problem.New(problem.Canceled, "%s was canceled", e.op.Type)
}

// goesOnError: the wait for an operation was broken off.
type goesOnError struct {
	op  openapi.Operation
	err error
}

func (e *goesOnError) Error() string {
	return fmt.Sprintf("operation %s goes on: %v", e.op.ID, e.err)
}
func (e *goesOnError) Unwrap() error { return e.err }

// unwellError: horcrux doctor found things that do not work.
type unwellError struct{ names []string }

func (e *unwellError) Error() string { return "it does not work: " + strings.Join(e.names, ", ") }

// exitCode is the exit code of an error, by its class.
func exitCode(err error) int {
	var usage *usageError
	var failed *failedError
	var unreachable *client.UnreachableError
	var unwell *unwellError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &unwell):
		return exitUnwell
	case errors.As(err, &failed):
		return failed.problem().Code.Exit()
	case problem.From(err) != nil:
		return problem.From(err).Code.Exit()
	case errors.As(err, &unreachable), errors.Is(err, client.ErrNoServer):
		return exitUnavailable
	}
	return exitOther
}

// explain writes what went wrong, which fields it is about, and what to do.
func explain(w io.Writer, err error) {
	var usage *usageError
	var failed *failedError
	var goesOn *goesOnError
	var answered *client.Error
	var unreachable *client.UnreachableError
	switch {
	case errors.As(err, &usage):
		fmt.Fprintf(w, "Error: %s\nSee: %s --help\n", usage, usage.cmd.CommandPath())
	case errors.As(err, &goesOn):
		fmt.Fprintf(w, "Error: no longer waiting: %v\nThe operation goes on. See: horcrux operation wait %s\n", goesOn.err, goesOn.op.ID)
	case errors.As(err, &failed):
		block(w, failed.problem())
		fmt.Fprintf(w, "Log: horcrux operation log %s\n", failed.op.ID)
	case errors.As(err, &answered):
		block(w, answered.Problem)
		if answered.Trace != "" {
			fmt.Fprintf(w, "Trace: %s\n", answered.Trace)
		}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(w, "Error: interrupted")
	case errors.As(err, &unreachable):
		fmt.Fprintf(w, "Error: %v\nTo mend: start the server with horcrux serve; horcrux doctor says what is in its way\n", err)
	case errors.Is(err, client.ErrNotHorcrux):
		fmt.Fprintf(w, "Error: %v\nTo mend: set HORCRUX_URL to the address that horcrux serve prints, such as https://host:8006\n", err)
	default:
		fmt.Fprintf(w, "Error: %v\n", err)
	}
}

func block(w io.Writer, p *problem.Problem) {
	fmt.Fprintf(w, "Error: %s: %s\n", p.Code.Title(), p.Detail)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range p.Fields {
		fmt.Fprintf(t, "  %s\t%s\n", f.Field, f.Detail)
	}
	_ = t.Flush() // to a terminal or a buffer; there is nowhere else to say that it failed
	if p.Operation != "" {
		fmt.Fprintf(w, "Operation: horcrux operation show %s\n", p.Operation)
	}
	fmt.Fprintf(w, "To mend: %s\n", p.Code.Mend())
}
