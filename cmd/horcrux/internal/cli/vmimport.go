//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) vmUnmanaged() *cobra.Command {
	return a.leaf("unmanaged", "List guests that others made", func(ctx context.Context, s *session, _ []string) error {
		all, err := client.Decode[openapi.UnmanagedVMs](s.ListUnmanagedVMs(ctx, nil))
		if err != nil {
			return err
		}
		for _, m := range all.Missing {
			fmt.Fprintf(s.cmd.ErrOrStderr(), "node %s does not answer; its guests are missing here\n", m.Name)
		}
		return printList(s, all.Items, func(u openapi.UnmanagedVM) string { return u.NativeID }, []column[openapi.UnmanagedVM]{
			{"NATIVE ID", func(u openapi.UnmanagedVM) string { return u.NativeID }},
			{"STATE", func(u openapi.UnmanagedVM) string { return string(u.State) }},
			{"BACKEND", func(u openapi.UnmanagedVM) string { return u.Backend }},
			{"NODE", func(u openapi.UnmanagedVM) string { return u.Node.String() }},
			{"ID", func(u openapi.UnmanagedVM) string { return u.ID.String() }},
		})
	})
}

func (a *app) vmImport() *cobra.Command {
	var c *change
	var backend string
	cmd := a.leaf("import NATIVE_ID", "Adopt a guest that others made, without touching it", func(ctx context.Context, s *session, args []string) error {
		body := openapi.VMImport{NativeID: args[0], Backend: given(s.cmd, "backend", openapi.Backend(backend))}
		resp, err := s.ImportVM(ctx, &openapi.ImportVMParams{Wait: s.wait(), Reason: c.reasonParam()}, body)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	cmd.Flags().StringVar(&backend, "backend", "", "qemu, lxd or incus")
	return cmd
}
