// Command horcrux is the server and the command line of Horcrux.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"horcrux/cmd/horcrux/internal/admin"
	"horcrux/cmd/horcrux/internal/build"
	"horcrux/cmd/horcrux/internal/cli"
	"horcrux/cmd/horcrux/internal/serve"
)

func main() {
	serve.Hook()
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := cli.New(cli.Build{Version: build.Version, Commit: build.Commit, Features: build.Features()})
	root.AddCommand(serve.Command(), admin.Audit())
	below(root, "events").AddCommand(admin.Rebase())
	return cli.Run(ctx, root, os.Args[1:])
}

// below finds a command of the client, to which one that works on the data dir is added.
func below(root *cobra.Command, name string) *cobra.Command {
	for _, c := range root.Commands() {
		if c.Name() == name {
			return c
		}
	}
	panic("no command " + name)
}
