package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// DefaultFile is read where no other file is named and it exists.
const DefaultFile = "/etc/horcrux/horcrux.yaml"

// FileEnv names the configuration file.
const FileEnv = "HORCRUX_CONFIG"

// fileFlag does so too and is stronger.
const fileFlag = "config"

// Register adds a flag for every key, and --config, to a command. A shell completes those that take one of a few words
// with these, and others with files.
func Register(cmd *cobra.Command) {
	addFlags(cmd.Flags())
	for _, k := range keys {
		complete := cobra.FixedCompletions(k.value.choices(), cobra.ShellCompDirectiveNoFileComp)
		if k.value.choices() == nil {
			complete = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault)
		}
		if err := cmd.RegisterFlagCompletionFunc(k.flag, complete); err != nil {
			panic(err) // a key is there twice
		}
	}
}

func addFlags(flags *pflag.FlagSet) {
	flags.String(fileFlag, "", "configuration file (default "+DefaultFile+" if it exists)")
	preset := Default()
	for _, k := range keys {
		usage := k.usage
		if d := k.value.show(preset); d != "" {
			usage += " (default " + d + ")"
		}
		flags.String(k.flag, "", usage)
	}
}

// Loaded is a configuration with where each of its values came from.
type Loaded struct {
	*Config
	// File is the configuration file that was read, "" if none.
	File   string
	origin map[string]string
}

// Load reads all sources: the flags that Register added, the environment by lookup (os.LookupEnv), and the file that
// they name. All mistakes are reported at once, each with its place.
func Load(flags *pflag.FlagSet, lookup func(string) (string, bool)) (*Loaded, error) {
	l := &Loaded{Config: Default(), origin: map[string]string{}}
	var mistakes []error
	put := func(k key, texts []string, origin string) {
		if err := k.value.set(l.Config, texts); err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %s: %w", origin, k.name, err))
			return
		}
		l.origin[k.name] = origin
	}
	fromEnv := func(k key, name string) {
		if text, ok := lookup(name); ok && text != "" {
			put(k, split(k, text), name)
		}
	}

	for _, k := range keys {
		if k.ambient != "" {
			fromEnv(k, k.ambient)
		}
	}
	settings, err := l.readFile(flags, lookup)
	if err != nil {
		mistakes = append(mistakes, err)
	}
	for _, s := range settings {
		put(s.key, s.texts, s.origin)
	}
	for _, k := range keys {
		fromEnv(k, k.env())
	}
	for _, k := range keys {
		if f := flags.Lookup(k.flag); f != nil && f.Changed {
			put(k, split(k, f.Value.String()), "--"+k.flag)
		}
	}
	if err := errors.Join(mistakes...); err != nil {
		return nil, err
	}
	return l, nil
}

// readFile reads the file that a flag or the environment names, or the default one where it exists.
func (l *Loaded) readFile(flags *pflag.FlagSet, lookup func(string) (string, bool)) ([]setting, error) {
	path, _ := lookup(FileEnv)
	if f := flags.Lookup(fileFlag); f != nil && f.Changed {
		path = f.Value.String()
	}
	optional := path == ""
	if optional {
		path = DefaultFile
	}
	raw, err := os.ReadFile(path)
	if optional && errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	l.File = path
	return parse(path, raw)
}

// split makes the items of a list out of one text.
func split(k key, text string) []string {
	if !k.value.isList() {
		return []string{text}
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// Explain writes every key with its value and where the value came from; passwords are hidden.
func (l *Loaded) Explain(w io.Writer) error {
	for _, k := range keys {
		shown, origin := k.value.show(l.Config), l.origin[k.name]
		if k.secret && shown != "" {
			shown = redact(shown)
		}
		if origin == "" {
			origin = "default"
		}
		if _, err := fmt.Fprintf(w, "%-17s %-30q %s\n", k.name, shown, origin); err != nil {
			return err
		}
	}
	return nil
}
