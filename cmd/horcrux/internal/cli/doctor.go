package cli

import (
	"os"
	"strings"

	"github.com/spf13/cobra"

	"horcrux/cmd/horcrux/internal/config"
	"horcrux/cmd/horcrux/internal/datadir"
	"horcrux/cmd/horcrux/internal/doctor"
)

func (a *app) doctor() *cobra.Command {
	cmd := a.leaf("doctor", "Look at all that a server of this host needs, and say how to mend it", nil)
	cmd.Long = `Look at all that a server of this host needs, as it is configured: what works, its version, what is wrong, and the
command that mends it. It changes nothing, and needs neither a running server nor root; what it may not look at it says.

The configuration is that of horcrux serve, from the same flags, variables and file; without a data dir it is that of
the server which the other commands would ask. WARN is something that not everybody needs, or that could not be looked
at. The exit code is 0 if nothing says FAIL, otherwise 9; 2 if the configuration itself is wrong.`
	config.Register(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := a.session(cmd)
		if err != nil {
			return err
		}
		c, err := config.Load(cmd.Flags(), os.LookupEnv)
		if err != nil {
			return Usage(cmd, err)
		}
		dir, err := datadir.Find(c.DataDir, a.getenv)
		if err != nil {
			return err
		}
		found := doctor.Run(cmd.Context(), doctor.Options{Config: c, DataDir: dir, Version: a.build.Version, Built: a.built})
		return s.diagnosis(found)
	}
	return cmd
}

func (a *app) built(flag string) bool {
	for _, f := range a.build.Features {
		if f.Name == flag {
			return f.Built
		}
	}
	return false
}

// diagnosis prints what was found. The error is an *unwellError when something does not work.
func (s *session) diagnosis(found []doctor.Finding) error {
	err := printList(s, found, func(f doctor.Finding) string { return f.Name }, []column[doctor.Finding]{
		{"STATUS", func(f doctor.Finding) string { return strings.ToUpper(string(f.Status)) }},
		{"NAME", func(f doctor.Finding) string { return f.Name }},
		{"VERSION", func(f doctor.Finding) string { return f.Version }},
		{"WHAT", func(f doctor.Finding) string {
			if f.Status == doctor.OK {
				return f.What
			}
			return f.What + " (for " + f.For + ")"
		}},
		{"TO MEND", func(f doctor.Finding) string { return f.Mend }},
	})
	var unwell []string
	for _, f := range found {
		if f.Status == doctor.Fail {
			unwell = append(unwell, f.Name)
		}
	}
	if err == nil && unwell != nil {
		return &unwellError{unwell}
	}
	return err
}
