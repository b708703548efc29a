package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/openapi"
)

// largestPage is how many items the server gives at once.
const largestPage = 1000

// listing is what the flags of a list say.
type listing struct {
	limit int
	sort  string
	find  string
}

func listFlags(cmd *cobra.Command, limit int, sorts string) *listing {
	l := &listing{}
	cmd.Flags().IntVar(&l.limit, "limit", limit, "at most so many; 0: all")
	if sorts != "" {
		cmd.Flags().StringVar(&l.sort, "sort", "", "fields, comma-separated, - for descending: "+sorts)
	}
	return l
}

func (l *listing) search(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&l.find, "query", "q", "", "a part of the name")
}

// pages collects pages until limit items are there, or all. fetch gets one page after a cursor; "" is the first.
func pages[T any](limit int, fetch func(size *int, cursor *string) ([]T, *string, error)) ([]T, error) {
	var all []T
	var cursor *string
	for {
		size := largestPage
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		items, next, err := fetch(&size, cursor)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == nil || limit > 0 && len(all) >= limit {
			return all, nil
		}
		cursor = next
	}
}

// history is a command that prints the history of an object.
func (a *app) history(use, short string, fetch func(ctx context.Context, s *session, args []string, size *int, cursor *string) (openapi.History, error)) *cobra.Command {
	var l *listing
	cmd := a.leaf(use, short, func(ctx context.Context, s *session, args []string) error {
		entries, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.HistoryEntry, *string, error) {
			page, err := fetch(ctx, s, args, size, cursor)
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, entries, func(e openapi.HistoryEntry) string { return e.Position }, []column[openapi.HistoryEntry]{
			{"TIME", func(e openapi.HistoryEntry) string { return stamp(e.Time) }},
			{"TYPE", func(e openapi.HistoryEntry) string { return e.Type }},
			{"ACTOR", func(e openapi.HistoryEntry) string { return e.Actor }},
			{"REASON", func(e openapi.HistoryEntry) string { return text(e.Reason) }},
			{"CHANGE", changed},
			{"POSITION", func(e openapi.HistoryEntry) string { return e.Position }},
		})
	})
	l = listFlags(cmd, 0, "")
	return cmd
}

// bookkeeping are fields that change with every event.
var bookkeeping = map[string]bool{"version": true, "updated_at": true, "observed_at": true, "position": true}

// changed says what an event changed in an object: "state=stopped → starting".
func changed(e openapi.HistoryEntry) string {
	if e.Version == 1 {
		return "new"
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(e.After)) {
		if !bookkeeping[name] {
			parts = append(parts, fmt.Sprintf("%s=%s → %s", name, compact(e.Before[name]), compact(e.After[name])))
		}
	}
	return strings.Join(parts, " ")
}

// compact writes a value of JSON in a few characters.
func compact(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(text)
}
