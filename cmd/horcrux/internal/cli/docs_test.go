package cli

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// docs/cli.md says what the commands say of themselves; go test -update writes it.
func TestDocs(t *testing.T) {
	var page strings.Builder
	page.WriteString("<!-- Written by go test ./cmd/horcrux/internal/cli -update; do not edit. -->\n\n# The command line\n")
	describe(&page, (&app{}).root())
	const file = "../../../../docs/cli.md"
	if *update {
		if err := os.WriteFile(file, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	written, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(written) != page.String() {
		t.Error("docs/cli.md is not what the commands say; run go test ./cmd/horcrux/internal/cli -update")
	}
}

func describe(w *strings.Builder, cmd *cobra.Command) {
	if cmd.HasParent() {
		fmt.Fprintf(w, "\n## %s\n", cmd.CommandPath())
	}
	long := cmd.Long
	if long == "" {
		long = cmd.Short + "."
	}
	fmt.Fprintf(w, "\n%s\n", long)
	if cmd.HasSubCommands() {
		for _, child := range cmd.Commands() {
			describe(w, child)
		}
		return
	}
	fmt.Fprintf(w, "\n    %s\n\n%s", cmd.UseLine(), cmd.LocalFlags().FlagUsages())
	if cmd.Example != "" {
		fmt.Fprintf(w, "\n%s\n", cmd.Example)
	}
}
