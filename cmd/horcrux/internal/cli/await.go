package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// change is what the flags of a changing command say about the operation.
type change struct {
	reason  string
	ifMatch string
}

// changing adds the flags that every command has which changes something.
func (a *app) changing(cmd *cobra.Command) *change {
	c := &change{}
	cmd.Flags().StringVar(&c.reason, "reason", "", "why, for the history")
	cmd.Flags().BoolVar(&a.noWait, "no-wait", false, "do not wait for the end of the operation")
	wait := cmd.Flags().Bool("wait", true, "wait for the end of the operation")
	cmd.PreRun = func(*cobra.Command, []string) { a.noWait = a.noWait || !*wait }
	return c
}

// conditional adds --if-match.
func (c *change) conditional(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.ifMatch, "if-match", "", "only if the object still has this version")
}

func (c *change) reasonParam() *string { return optional(c.reason) }

// ifMatchParam makes an ETag of a version, however it is quoted.
func (c *change) ifMatchParam() *string {
	if c.ifMatch == "" {
		return nil
	}
	etag := `"` + strings.Trim(c.ifMatch, `"`) + `"`
	return &etag
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// wait is how many seconds a changing call waits in the server: short where a progress bar wants to know more often.
func (s *session) wait() *int {
	seconds := 60
	switch {
	case s.noWait:
		seconds = 0
	case s.terminal() != nil:
		seconds = 1
	}
	return &seconds
}

// finish waits for the operation that a call became, unless --no-wait, and says how it ended. name is the object's.
func (s *session) finish(ctx context.Context, name string, resp *http.Response, err error) error {
	op, err := client.Decode[openapi.Operation](resp, err)
	if err != nil {
		return err
	}
	if op, err = s.await(ctx, op); err != nil {
		return err
	}
	if s.output != "table" {
		return printOne(s, name, op)
	}
	if !op.State.Ended() {
		_, err = fmt.Fprintf(s.out, "%s: %s %s, operation %s\n", printable(name), op.Type, op.State, op.ID)
		return err
	}
	_, err = fmt.Fprintf(s.out, "%s: %s %s\n", printable(name), op.Type, op.State)
	return err
}

// await returns the operation when it has ended, or at once with --no-wait. The error is a *failedError when it did
// not end well.
func (s *session) await(ctx context.Context, op openapi.Operation) (openapi.Operation, error) {
	if !op.State.Ended() && !s.noWait {
		var report func(openapi.Operation)
		bar := s.terminal()
		if bar != nil {
			report = func(op openapi.Operation) { drawProgress(bar, op, time.Now()) }
		}
		ended, err := s.Wait(ctx, op.ID, report)
		if bar != nil {
			fmt.Fprint(bar, clearLine)
		}
		if err != nil {
			return op, &goesOnError{op, err}
		}
		op = ended
	}
	if op.State.Ended() && op.State != "succeeded" {
		return op, &failedError{op}
	}
	return op, nil
}

// terminal is standard error where a person looks at it, nil otherwise.
func (s *session) terminal() io.Writer {
	f, ok := s.cmd.ErrOrStderr().(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	return f
}

const (
	clearLine = "\r\x1b[K"
	barWidth  = 24
)

// drawProgress writes one line over the one before: a bar, the step under way and how long it has taken.
func drawProgress(w io.Writer, op openapi.Operation, now time.Time) {
	full := barWidth * min(max(op.Progress, 0), 100) / 100
	doing := string(op.State)
	for _, step := range op.Steps {
		if step.State == "running" || step.State == "undoing" {
			doing = step.State + " " + step.Name
		}
	}
	fmt.Fprintf(w, "%s[%s%s] %3d%% %s %s %s", clearLine, strings.Repeat("#", full), strings.Repeat(".", barWidth-full),
		op.Progress, op.Type, printable(doing), now.Sub(op.CreatedAt).Truncate(time.Second))
}
