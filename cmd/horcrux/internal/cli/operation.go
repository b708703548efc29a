//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) operation() *cobra.Command {
	return group("operation", "What changes become", a.operationList(), a.operationShow(), a.operationWait(), a.operationLog(), a.operationCancel())
}

func (a *app) operationList() *cobra.Command {
	var l *listing
	var state, kind, resource, actor string
	cmd := a.leaf("list", "List operations, the newest first", func(ctx context.Context, s *session, _ []string) error {
		params := openapi.ListOperationsParams{
			Sort: optional(l.sort), State: (*openapi.OperationState)(optional(state)), Type: optional(kind),
			Resource: optional(resource), Actor: optional(actor),
		}
		ops, err := pages(l.limit, func(size *int, cursor *string) ([]openapi.Operation, *string, error) {
			params.Limit, params.Cursor = size, cursor
			page, err := client.Decode[openapi.OperationList](s.ListOperations(ctx, &params))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, ops, func(o openapi.Operation) string { return o.ID.String() }, []column[openapi.Operation]{
			{"ID", func(o openapi.Operation) string { return o.ID.String() }},
			{"TYPE", func(o openapi.Operation) string { return o.Type }},
			{"STATE", func(o openapi.Operation) string { return string(o.State) }},
			{"PROGRESS", func(o openapi.Operation) string { return fmt.Sprintf("%d%%", o.Progress) }},
			{"ACTOR", func(o openapi.Operation) string { return o.Actor }},
			{"CREATED", func(o openapi.Operation) string { return stamp(o.CreatedAt) }},
			{"RESOURCE", func(o openapi.Operation) string { return o.Resource }},
			{"ERROR", func(o openapi.Operation) string {
				if o.Error == nil {
					return ""
				}
				return string(o.Error.Code)
			}},
		})
	})
	l = listFlags(cmd, 100, "created_at, type or state")
	cmd.Flags().StringVar(&state, "state", "", "only in this state")
	cmd.Flags().StringVar(&kind, "type", "", "only of this type: vm.start")
	cmd.Flags().StringVar(&resource, "resource", "", "only of this object, by path or id")
	cmd.Flags().StringVar(&actor, "actor", "", "only of this actor")
	return cmd
}

// operationLeaf is a command for one operation, by its id.
func (a *app) operationLeaf(use, short string, do func(ctx context.Context, s *session, id uuid.UUID) error) *cobra.Command {
	return a.leaf(use+" OPERATION", short, func(ctx context.Context, s *session, args []string) error {
		id, err := uuid.Parse(args[0])
		if err != nil {
			return &usageError{s.cmd, fmt.Sprintf("%q is not the id of an operation", args[0])}
		}
		return do(ctx, s, id)
	})
}

func (a *app) operationShow() *cobra.Command {
	return a.operationLeaf("show", "Show an operation", func(ctx context.Context, s *session, id uuid.UUID) error {
		op, err := client.Decode[openapi.Operation](s.GetOperation(ctx, id, nil))
		if err != nil {
			return err
		}
		return printOne(s, op.ID.String(), op)
	})
}

func (a *app) operationWait() *cobra.Command {
	return a.operationLeaf("wait", "Wait for the end of an operation", func(ctx context.Context, s *session, id uuid.UUID) error {
		s.noWait = false
		resp, err := s.GetOperation(ctx, id, nil)
		return s.finish(ctx, id.String(), resp, err)
	})
}

func (a *app) operationLog() *cobra.Command {
	return a.operationLeaf("log", "What an operation did, with what the drivers said", func(ctx context.Context, s *session, id uuid.UUID) error {
		entries, err := pages(0, func(size *int, cursor *string) ([]openapi.OperationLogEntry, *string, error) {
			page, err := client.Decode[openapi.OperationLog](s.ListOperationLog(ctx, id, &openapi.ListOperationLogParams{Limit: size, Cursor: cursor}))
			return page.Items, page.Next, err
		})
		if err != nil {
			return err
		}
		return printList(s, entries, func(e openapi.OperationLogEntry) string { return e.Position }, []column[openapi.OperationLogEntry]{
			{"TIME", func(e openapi.OperationLogEntry) string { return stamp(e.Time) }},
			{"TYPE", func(e openapi.OperationLogEntry) string { return e.Type }},
			{"STEP", func(e openapi.OperationLogEntry) string { return text(e.Step) }},
			{"ERROR", func(e openapi.OperationLogEntry) string {
				if e.Error == nil {
					return ""
				}
				return e.Error.Error()
			}},
			{"LOG", func(e openapi.OperationLogEntry) string { return text(e.Log) }},
		})
	})
}

func (a *app) operationCancel() *cobra.Command {
	var reason string
	cmd := a.operationLeaf("cancel", "Stop an operation and take back what it did", func(ctx context.Context, s *session, id uuid.UUID) error {
		op, err := client.Decode[openapi.Operation](s.CancelOperation(ctx, id, &openapi.CancelOperationParams{Reason: optional(reason)}))
		if err != nil {
			return err
		}
		return printOne(s, op.ID.String(), op)
	})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history")
	return cmd
}
