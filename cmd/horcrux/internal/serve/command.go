package serve

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"horcrux/cmd/horcrux/internal/cli"
	"horcrux/cmd/horcrux/internal/config"
	"horcrux/cmd/horcrux/internal/datadir"
	"horcrux/pkg/trace"
)

// Command is `horcrux serve`.
func Command() *cobra.Command {
	var check bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the services of this node",
		Long: "Runs the services of this node, with a private Postgres and an embedded NATS where no others are named.\n" +
			"SIGTERM drains and stops; SIGHUP reads the configuration again.",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := config.Load(cmd.Flags(), os.LookupEnv)
			if err != nil {
				return cli.Usage(cmd, err)
			}
			if check {
				return l.Explain(cmd.OutOrStdout())
			}
			if err := alone(l.Config); err != nil {
				return cli.Usage(cmd, err)
			}
			return serve(cmd.Context(), l.Config, cmd.Flags(), cmd.OutOrStdout())
		},
	}
	config.Register(c)
	c.Flags().BoolVar(&check, "check-config", false, "say what the configuration is and where each value comes from, and stop")
	return c
}

func serve(ctx context.Context, c *config.Config, flags *pflag.FlagSet, out io.Writer) error {
	var level slog.LevelVar
	level.Set(c.Log.Level)
	log := logger(os.Stderr, c.Log.Format, &level)
	if c.DataDir == "" {
		c.DataDir = datadir.Resolve("")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan struct{})
	go func() { // ends with ctx, before serve returns
		defer close(done)
		reload(ctx, c, flags, &level, log)
	}()
	defer func() { cancel(); <-done }()
	return Run(ctx, *c, log, out)
}

// alone refuses to run some services by themselves: without the others they need what they share.
func alone(c *config.Config) error {
	if len(c.Services) == len(config.Services) || c.Database != "" && c.NATS.URL != "" {
		return nil
	}
	return fmt.Errorf("--services %v runs a part of the services, which find the others through --nats and --database: name both", c.Services)
}

// logger writes for people on a terminal and for programs elsewhere, unless it is told which.
func logger(to *os.File, format string, level slog.Leveler) *slog.Logger {
	o := &slog.HandlerOptions{Level: level}
	if format == "text" || format == "auto" && term.IsTerminal(int(to.Fd())) {
		return slog.New(trace.Handler(slog.NewTextHandler(to, o)))
	}
	return slog.New(trace.Handler(slog.NewJSONHandler(to, o)))
}

// reload reads the configuration again at each SIGHUP, takes what can be taken while running, and says what cannot.
func reload(ctx context.Context, now *config.Config, flags *pflag.FlagSet, level *slog.LevelVar, log *slog.Logger) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
		}
		next, err := config.Load(flags, os.LookupEnv)
		if err != nil {
			log.Error("the configuration is not taken", "err", err)
			continue
		}
		if next.DataDir == "" {
			next.DataDir = now.DataDir
		}
		live, restart := now.Changes(next.Config)
		level.Set(next.Log.Level)
		now.Log.Level = next.Log.Level
		log.Info("configuration read again", "taken", live, "wait for a restart", restart)
	}
}
