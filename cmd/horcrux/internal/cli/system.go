//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

func (a *app) features() *cobra.Command {
	return a.leaf("features", "What the server was built with", func(ctx context.Context, s *session, _ []string) error {
		list, err := client.Decode[openapi.FeatureList](s.ListFeatures(ctx))
		if err != nil {
			return err
		}
		return printList(s, list.Items, func(f openapi.Feature) string { return f.Name }, []column[openapi.Feature]{
			{"USE", func(f openapi.Feature) string { return useFlag(f) }},
			{"DESCRIPTION", func(f openapi.Feature) string { return f.Description }},
		})
	})
}

// useFlag writes a flag as USE does: qemu, or -qemu when it is left out.
func useFlag(f openapi.Feature) string {
	if f.Built {
		return f.Name
	}
	return "-" + f.Name
}

// versions is what horcrux version prints. Server is null when none answers.
type versions struct {
	Client openapi.Version  `json:"client"`
	Use    string           `json:"use"` // of the client's binary
	Server *openapi.Version `json:"server"`
}

func (a *app) version() *cobra.Command {
	cmd := a.leaf("version", "What this binary and the server are", nil)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		v := versions{Client: openapi.Version{Version: a.build.Version, Commit: a.build.Commit, Go: goVersion()}}
		flags := make([]string, len(a.build.Features))
		for i, f := range a.build.Features {
			flags[i] = useFlag(f)
		}
		v.Use = strings.Join(flags, " ")
		s, err := a.connect(cmd)
		if errors.Is(err, client.ErrNoServer) {
			return printOne(s, v.Client.Version, v)
		}
		if err != nil {
			return err
		}
		defer s.Close()
		server, err := client.Decode[openapi.Version](s.GetVersion(cmd.Context()))
		var unreachable *client.UnreachableError
		if err == nil {
			v.Server = &server
		} else if !errors.As(err, &unreachable) {
			return err
		}
		return printOne(s, v.Client.Version, v)
	}
	return cmd
}
