package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// usageError: the command line itself is wrong.
type usageError struct {
	cmd  *cobra.Command
	text string
}

func (e *usageError) Error() string { return e.cmd.CommandPath() + ": " + e.text }

// Usage is the error of a command line, or of what it takes from the environment and the configuration file, that is
// wrong itself.
func Usage(cmd *cobra.Command, err error) error { return &usageError{cmd, err.Error()} }

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error { return takes(cmd, nil, args) }

// Group is a command that only has others below it.
func Group(use, short string, children ...*cobra.Command) *cobra.Command {
	return group(use, short, children...)
}

// takes compares the arguments with the names of those that a command takes.
func takes(cmd *cobra.Command, names, args []string) error {
	switch {
	case len(args) == len(names):
		return nil
	case len(names) == 0:
		return &usageError{cmd, fmt.Sprintf("takes no arguments, not %q", strings.Join(args, " "))}
	case len(args) == 0:
		return &usageError{cmd, "takes " + strings.Join(names, " and ")}
	}
	return &usageError{cmd, fmt.Sprintf("takes %s, not %q", strings.Join(names, " and "), strings.Join(args, " "))}
}

// group is a command that only has others below it.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return unknownCommand(cmd, args[0])
		},
		RunE:                       func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SuggestionsMinimumDistance: 2,
	}
	cmd.AddCommand(children...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	text := fmt.Sprintf("unknown command %q", name)
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		text += ", did you mean " + strings.Join(near, " or ") + "?"
	}
	return &usageError{cmd, text}
}

// helpCommand is `horcrux help`, which knows what it does not know.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]...", Short: "Help about any command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 && about.HasSubCommands() {
				return unknownCommand(about, rest[0])
			}
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var names []cobra.Completion
			if about, rest, err := cmd.Root().Find(args); err == nil && len(rest) == 0 {
				for _, child := range about.Commands() {
					if child.IsAvailableCommand() && strings.HasPrefix(child.Name(), begin) {
						names = append(names, cobra.CompletionWithDesc(child.Name(), child.Short))
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// flagError says of a flag that is wrong what would be right.
func flagError(cmd *cobra.Command, err error) error {
	var unknown *pflag.NotExistError
	var value *pflag.InvalidValueError
	switch {
	case errors.As(err, &unknown) && unknown.GetSpecifiedShortnames() == "":
		text := err.Error()
		if near := nearFlags(cmd, unknown.GetSpecifiedName()); len(near) > 0 {
			text += ", did you mean " + strings.Join(near, " or ") + "?"
		}
		return &usageError{cmd, text}
	case errors.As(err, &value):
		kind := map[string]string{"bool": "true or false", "int": "a whole number", "int64": "a whole number"}[value.GetFlag().Value.Type()]
		if kind != "" {
			return &usageError{cmd, fmt.Sprintf("--%s takes %s, not %q", value.GetFlag().Name, kind, value.GetValue())}
		}
	}
	return &usageError{cmd, err.Error()}
}

// nearFlags are those whose name goes on from the one given, or of which it is one word.
func nearFlags(cmd *cobra.Command, name string) []string {
	var near []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if strings.HasPrefix(f.Name, name) || strings.HasPrefix(name, f.Name) || slices.Contains(strings.Split(f.Name, "-"), name) {
			near = append(near, "--"+f.Name)
		}
	})
	return near
}
