// Package cli is the command line's client: everything that horcrux does by asking a server.
package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// Build describes this binary.
type Build struct {
	Version  string
	Commit   string
	Features []openapi.Feature // every USE flag, built or not
}

// New returns the root command with all that asks a server below it. Run runs it.
func New(build Build) *cobra.Command {
	return (&app{build: build, getenv: os.Getenv}).root()
}

// Run runs a command line and returns its exit code. What went wrong is on the root's standard error as one block.
func Run(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	if err := root.ExecuteContext(ctx); err != nil {
		explain(root.ErrOrStderr(), err)
		return exitCode(err)
	}
	return 0
}

// app is what the commands of one run share.
type app struct {
	build  Build
	getenv func(string) string
	wrap   func(http.RoundTripper) http.RoundTripper // for tests

	output string // -o
	noWait bool   // --no-wait
}

func (a *app) root() *cobra.Command {
	root := group("horcrux", "Virtual machines, storage and what they need",
		a.vm(), a.network(), a.operation(), a.pool(), a.volume(), a.top(), a.events(), a.dlq(), a.features(), a.version(),
		a.doctor(), a.completion())
	root.Long = `Virtual machines, storage and what they need.

A client command asks the server of HORCRUX_URL with HORCRUX_TOKEN, else the one of HORCRUX_DATA_DIR, ./.horcrux or
/var/lib/horcrux. Exit codes: 0 done, 1 other, 2 usage or an invalid value, 3 not found, 4 conflict, 5 access,
6 unavailable, 7 not built or not yet written, 8 the operation failed, 9 horcrux doctor found what does not work.`
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	root.SetHelpCommand(helpCommand())
	root.Version = a.build.Version
	root.SetVersionTemplate("{{.Version}}\n")       // of this binary; horcrux version knows the server's too
	root.CompletionOptions.DisableDefaultCmd = true // for our own
	a.complete(root)
	return root
}

// run is what a command does with a client.
type run func(ctx context.Context, s *session, args []string) error

// leaf is a command that asks the server. use names its arguments: "show VM".
func (a *app) leaf(use, short string, do run) *cobra.Command {
	names := strings.Fields(use)[1:]
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error { return takes(cmd, names, args) },
	}
	cmd.Flags().StringVarP(&a.output, "output", "o", "table", "table, json, yaml or name")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s, err := a.connect(cmd)
		if err != nil {
			return err
		}
		defer s.Close()
		return do(cmd.Context(), s, args)
	}
	return cmd
}

// outputs are what -o may be.
var outputs = []string{"table", "json", "yaml", "name"}

// session is a client and where its answers go.
type session struct {
	*client.Client
	cmd    *cobra.Command
	out    io.Writer
	output string
	noWait bool
}

// session is one without a client.
func (a *app) session(cmd *cobra.Command) (*session, error) {
	if !slices.Contains(outputs, a.output) {
		return nil, &usageError{cmd, fmt.Sprintf("--output %q is not table, json, yaml or name", a.output)}
	}
	return &session{cmd: cmd, out: cmd.OutOrStdout(), output: a.output, noWait: a.noWait}, nil
}

// connect returns a session; its client is nil when there is no place to ask (client.ErrNoServer).
func (a *app) connect(cmd *cobra.Command) (*session, error) {
	s, err := a.session(cmd)
	if err != nil {
		return nil, err
	}
	s.Client, err = a.client()
	return s, err
}

// client is one of the server that the environment names.
func (a *app) client() (*client.Client, error) {
	place, err := client.Find(a.getenv)
	if err != nil {
		return nil, err
	}
	place.Wrap = a.wrap
	return client.New(place)
}

// given returns a flag's value when it was given, nil otherwise.
func given[T any](cmd *cobra.Command, name string, value T) *T {
	if !cmd.Flags().Changed(name) {
		return nil
	}
	return &value
}

// goVersion is the toolchain of this binary.
func goVersion() string { return runtime.Version() }
