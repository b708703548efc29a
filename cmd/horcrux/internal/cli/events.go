//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) events() *cobra.Command {
	var follow bool
	var after, stream string
	var types []string
	var limit int
	cmd := a.leaf("events", "Read or follow the log of all that happened", func(ctx context.Context, s *session, _ []string) error {
		params := openapi.ListEventsParams{After: given(s.cmd, "after", after), Stream: optional(stream), Type: types}
		if follow {
			return s.follow(ctx, params)
		}
		events, err := s.read(ctx, params, limit)
		if err != nil {
			return err
		}
		return printList(s, events, func(e openapi.Event) string { return e.Position.String() }, []column[openapi.Event]{
			{"TIME", func(e openapi.Event) string { return stamp(e.At) }},
			{"TYPE", func(e openapi.Event) string { return e.Type }},
			{"STREAM", func(e openapi.Event) string { return string(e.Stream) }},
			{"VERSION", func(e openapi.Event) string { return fmt.Sprint(e.Version) }},
			{"ACTOR", func(e openapi.Event) string { return e.Meta.Principal() }},
			{"POSITION", func(e openapi.Event) string { return e.Position.String() }},
		})
	})
	cmd.Long = `Read the log of all that happened, or follow it.

Without --after it begins with the first event; --follow then begins now. A stream that breaks is taken up again where
it broke, without loss or repeat. With -o json, --follow prints one line for each event.`
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what happens")
	cmd.Flags().StringVar(&after, "after", "", "only after this position; empty: from the first event")
	cmd.Flags().StringArrayVar(&types, "type", nil, "only this type, or vm.*; may be repeated")
	cmd.Flags().StringVar(&stream, "stream", "", "only of this object: vm/<id>")
	cmd.Flags().IntVar(&limit, "limit", 100, "at most so many, without --follow; 0: all")
	return cmd
}

// read collects events page by page.
func (s *session) read(ctx context.Context, params openapi.ListEventsParams, limit int) ([]openapi.Event, error) {
	return pages(limit, func(size *int, next *string) ([]openapi.Event, *string, error) {
		params.Limit = size
		if next != nil {
			params.After = next
		}
		page, err := client.Decode[openapi.EventList](s.ListEvents(ctx, &params))
		return page.Items, page.Next, err
	})
}

// follow prints events as they happen, until the user has seen enough.
func (s *session) follow(ctx context.Context, params openapi.ListEventsParams) error {
	if params.After == nil {
		now, err := s.now(ctx)
		if err != nil {
			return err
		}
		params.After = &now
	}
	err := s.Follow(ctx, params, s.printEvent)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// now is how far the server knows the log.
func (s *session) now(ctx context.Context) (string, error) {
	one := 1
	page, err := client.Decode[openapi.OperationList](s.ListOperations(ctx, &openapi.ListOperationsParams{Limit: &one}))
	return page.Position, err
}

func (s *session) printEvent(e openapi.Event) error {
	var err error
	switch s.output {
	case "name":
		_, err = fmt.Fprintln(s.out, e.Position)
	case "json":
		err = json.NewEncoder(s.out).Encode(e)
	case "yaml":
		if _, err = fmt.Fprintln(s.out, "---"); err == nil {
			err = s.document(e)
		}
	default:
		_, err = fmt.Fprintf(s.out, "%s  %-24s %-46s %s\n", stamp(e.At), e.Type, e.Stream, printable(e.Meta.Principal()))
	}
	return err
}
