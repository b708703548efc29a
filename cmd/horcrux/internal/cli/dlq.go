//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"net/http"
	"strconv"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) dlq() *cobra.Command {
	return group("dlq", "Commands that no service could handle",
		a.dlqList(),
		a.letter("show", "Show a dead letter", (*client.Client).GetDeadLetter),
		a.letter("retry", "Publish the command of a dead letter again", (*client.Client).RetryDeadLetter),
		a.letter("drop", "Give a dead letter up: its operation fails", (*client.Client).DropDeadLetter))
}

func (a *app) dlqList() *cobra.Command {
	return a.leaf("ls", "List dead letters, the oldest first", func(ctx context.Context, s *session, _ []string) error {
		list, err := client.Decode[openapi.DeadLetterList](s.ListDeadLetters(ctx))
		if err != nil {
			return err
		}
		return printList(s, list.Items, letterName, []column[openapi.DeadLetter]{
			{"SEQUENCE", letterName},
			{"AT", func(d openapi.DeadLetter) string { return stamp(d.At) }},
			{"TYPE", func(d openapi.DeadLetter) string { return text(d.Type) }},
			{"REASON", func(d openapi.DeadLetter) string { return d.Reason }},
			{"OPERATION", func(d openapi.DeadLetter) string { return idText(d.Operation) }},
			{"DETAIL", func(d openapi.DeadLetter) string { return d.Detail }},
		})
	})
}

func letterName(d openapi.DeadLetter) string { return strconv.FormatInt(d.Sequence, 10) }

func idText(id *uuid.UUID) string {
	if id == nil {
		return ""
	}
	return id.String()
}

// letterCall is what the client does with one dead letter.
type letterCall func(*client.Client, context.Context, int64, ...client.RequestEditorFn) (*http.Response, error)

// letter is a command to one dead letter.
func (a *app) letter(verb, short string, call letterCall) *cobra.Command {
	return a.leaf(verb+" SEQUENCE", short, func(ctx context.Context, s *session, args []string) error {
		seq, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil || seq < 1 {
			return &usageError{s.cmd, "SEQUENCE is the number that dlq ls shows"}
		}
		d, err := client.Decode[openapi.DeadLetter](call(s.Client, ctx, seq))
		if err != nil {
			return err
		}
		return printOne(s, letterName(d), d)
	})
}
