package cli

import (
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// askTime bounds the question for live names: somebody has pressed Tab and waits.
const askTime = time.Second

// source finds what may stand where args come before it and begin is typed already. What is in the way, a server that
// is down above all, means that there is nothing to offer, and never a word on the terminal.
type source func(a *app, cmd *cobra.Command, args []string, begin string) []cobra.Completion

// arguments are the sources of arguments by the name that Use gives them: of one command's, or of all that have the
// name. nil is what nobody knows yet.
var arguments = map[string]source{
	"NATIVE_ID": live(unmanagedNames),
	"NETWORK":   live(networkNames),
	"NAME":      nil,
	"SIZE":      nil,
	"VM":        live(vmNames),
	"POOL":      live(poolNames),
	"VOLUME":    live(volumeNames),
	"OPERATION": live(operationIDs),
	"SEQUENCE":  live(letterSequences),
	"DISK":      live(diskNames),
	"NIC":       live(nicNames),
	"SNAPSHOT":  live(snapshotNames),

	"horcrux vm disk attach DISK":   pairs(newDisk),
	"horcrux vm nic attach NETWORK": pairs(newNIC),
}

// The fields of disks and NICs that are given in one word: of new ones, and of those that a machine has.
var (
	newDisk = map[string]source{
		"pool": live(poolNames), "size_gb": nil, "format": enum("DiskFormat"), "image": nil, "bus": enum("DiskBus"), "boot_order": nil,
		"cache": enum("DiskCache"), "discard": enum("DiskDiscard"),
	}
	newNIC = map[string]source{
		"network": live(networkNames), "model": enum("NICModel"), "mac": nil, "mtu": nil, "link": enum("LinkState"), "boot_order": nil,
	}
	oldDisk = map[string]source{
		"name": live(diskNames), "bus": enum("DiskBus"), "boot_order": nil, "cache": enum("DiskCache"), "discard": enum("DiskDiscard"),
	}
	oldNIC = map[string]source{
		"name": live(nicNames), "network": live(networkNames), "model": enum("NICModel"), "mac": nil, "mtu": nil, "link": enum("LinkState"), "boot_order": nil,
	}
)

// flagValues are the sources of flags: of one command's, or of all that have the name.
var flagValues = map[string]source{
	"--output":                          fixed(outputs...),
	"--backend":                         enum("Backend"),
	"--bus":                             enum("DiskBus"),
	"--firmware":                        enum("Firmware"),
	"--format":                          enum("DiskFormat"),
	"--machine":                         enum("Machine"),
	"--model":                           enum("NICModel"),
	"--on-drift":                        enum("OnDrift"),
	"--disk":                            pairs(newDisk),
	"--network":                         pairs(newNIC),
	"horcrux vm update --disk":          pairs(oldDisk),
	"horcrux vm update --network":       pairs(oldNIC),
	"--node":                            live(nodeIDs),
	"--to":                              live(vmPositions),
	"horcrux vm list --state":           enum("VMState"),
	"horcrux vm list --tag":             live(vmTags),
	"horcrux vm list --sort":            fields("name", "created_at", "updated_at", "state", "node", "backend", "autostart", "cpus", "memory_mb"),
	"horcrux pool list --sort":          fields("name", "created_at", "updated_at", "type", "state", "node"),
	"horcrux volume list --state":       enum("VolumeState"),
	"horcrux volume list --sort":        fields("name", "created_at", "updated_at", "state", "owner", "format", "node"),
	"horcrux operation list --state":    enum("OperationState"),
	"horcrux operation list --sort":     fields("created_at", "type", "state"),
	"horcrux operation list --resource": live(vmPaths),
}

// fileFlags take a path, which the shell itself completes.
var fileFlags = []string{"file", "kernel", "initrd", "iso", "vnc-password-file"}

// complete gives the arguments and flags of a command and of those below it what they are completed with.
func (a *app) complete(cmd *cobra.Command) {
	for _, child := range cmd.Commands() {
		a.complete(child)
	}
	if !cmd.HasSubCommands() {
		cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
			var find source
			if names := argumentNames(cmd); len(args) < len(names) {
				find = argument(cmd, names[len(args)])
			}
			return a.offer(find, cmd, args, begin)
		}
	}
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		find := flagValues[cmd.CommandPath()+" --"+f.Name]
		if find == nil {
			find = flagValues["--"+f.Name]
		}
		if _, has := cmd.GetFlagCompletionFunc(f.Name); has || slices.Contains(fileFlags, f.Name) {
			return
		}
		err := cmd.RegisterFlagCompletionFunc(f.Name, func(cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return a.offer(find, cmd, args, begin)
		})
		if err != nil {
			panic(err) // two sources for one flag
		}
	})
}

// argument is the source of an argument of a command.
func argument(cmd *cobra.Command, name string) source {
	if find, own := arguments[cmd.CommandPath()+" "+name]; own {
		return find
	}
	return arguments[name]
}

// argumentNames are the names of the arguments that a command takes.
func argumentNames(cmd *cobra.Command) []string {
	names := strings.Fields(cmd.Use)[1:]
	for i := range names {
		names[i] = strings.Trim(names[i], "[].")
	}
	return names
}

// offer is what a source finds, as far as it goes on from what is typed.
func (a *app) offer(find source, cmd *cobra.Command, args []string, begin string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if find == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found := slices.DeleteFunc(find(a, cmd, args, begin), func(c cobra.Completion) bool { return !strings.HasPrefix(c, begin) })
	directive := cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder
	if slices.ContainsFunc(found, func(c cobra.Completion) bool { return strings.HasSuffix(c, "=") }) {
		directive |= cobra.ShellCompDirectiveNoSpace // for the value
	}
	return found, directive
}

func fixed(values ...string) source {
	return func(*app, *cobra.Command, []string, string) []cobra.Completion { return slices.Clone(values) }
}

// enum offers what the contract allows.
func enum(schema string) source {
	return func(*app, *cobra.Command, []string, string) []cobra.Completion {
		return slices.Clone(openapi.Enum(schema))
	}
}

// fields offers the next of a comma-separated list of fields, each of which may have a - before it.
func fields(names ...string) source {
	return func(_ *app, _ *cobra.Command, _ []string, begin string) []cobra.Completion {
		before := begin[:strings.LastIndex(begin, ",")+1]
		sign := ""
		if strings.HasPrefix(begin[len(before):], "-") {
			sign = "-"
		}
		given := strings.Split(strings.ReplaceAll(before, "-", ""), ",")
		var found []cobra.Completion
		for _, name := range names {
			if !slices.Contains(given, name) {
				found = append(found, before+sign+name)
			}
		}
		return found
	}
}

// pairs offers the next key of a list such as pool=local,size_gb=1, and what its value may be; nil is anything.
func pairs(keys map[string]source) source {
	return func(a *app, cmd *cobra.Command, args []string, begin string) []cobra.Completion {
		before := begin[:strings.LastIndex(begin, ",")+1]
		var found []cobra.Completion
		key, value, valued := strings.Cut(begin[len(before):], "=")
		if find := keys[key]; valued && find != nil {
			for _, c := range find(a, cmd, args, value) {
				found = append(found, before+key+"="+c)
			}
		}
		if valued {
			return found
		}
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			if !strings.Contains(","+before, ","+key+"=") {
				found = append(found, before+key+"=")
			}
		}
		return found
	}
}

// live asks the server.
func live(find func(ctx context.Context, c *client.Client, args []string, begin string) ([]cobra.Completion, error)) source {
	return func(a *app, cmd *cobra.Command, args []string, begin string) []cobra.Completion {
		c, err := a.client()
		if err != nil {
			return nil
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(cmd.Context(), askTime)
		defer cancel()
		found, err := find(ctx, c, args, begin)
		if err != nil {
			return nil
		}
		return found
	}
}

// completion is `horcrux completion`, in place of cobra's, whose mistakes have exit codes and words of their own.
func (a *app) completion() *cobra.Command {
	shell := func(name, how string, write func(root *cobra.Command, w io.Writer) error) *cobra.Command {
		return &cobra.Command{
			Use: name, Short: "Write the completion script for " + name,
			Long: "Write the completion script for " + name + ". To have it in every new shell:\n\n    " + how,
			Args: NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error { return write(cmd.Root(), cmd.OutOrStdout()) },
		}
	}
	return group("completion", "Completion of commands, flags and live names for a shell",
		shell("bash", "horcrux completion bash > /etc/bash_completion.d/horcrux    # the package bash-completion is needed",
			func(root *cobra.Command, w io.Writer) error { return root.GenBashCompletionV2(w, true) }),
		shell("fish", "horcrux completion fish > ~/.config/fish/completions/horcrux.fish",
			func(root *cobra.Command, w io.Writer) error { return root.GenFishCompletion(w, true) }),
		shell("zsh", `horcrux completion zsh > "${fpath[1]}/_horcrux"    # after "autoload -U compinit; compinit" in ~/.zshrc`,
			func(root *cobra.Command, w io.Writer) error { return root.GenZshCompletion(w) }))
}
