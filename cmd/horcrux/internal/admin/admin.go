// Package admin are the commands that work on the event log itself, beside a running server or without one.
package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/spf13/cobra"

	"horcrux/cmd/horcrux/internal/cli"
	"horcrux/cmd/horcrux/internal/config"
	"horcrux/cmd/horcrux/internal/datadir"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/pkg/pgserver"
)

// stopTime bounds the end of a Postgres that was started for one command.
const stopTime = 30 * time.Second

// Audit is `horcrux audit`.
func Audit() *cobra.Command {
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Recompute the hash chain of every stream",
		Long:  "Recomputes the hash chain of every stream and compares it with the recorded one. " + postgres.Limits,
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDatabase(cmd, false, func(ctx context.Context, dsn string) error { return verify(ctx, cmd, dsn) })
		},
	}
	config.Register(verify)
	return cli.Group("audit", "Prove that the event log is as it was recorded", verify)
}

func verify(ctx context.Context, cmd *cobra.Command, dsn string) error {
	store, err := postgres.Open(ctx, dsn, postgres.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	r, err := store.Verify(ctx, func(r postgres.Report) {
		fmt.Fprintf(cmd.ErrOrStderr(), "\r%d events", r.Events)
	})
	if err != nil {
		return err
	}
	for _, f := range r.Findings {
		fmt.Fprintln(cmd.OutOrStdout(), f)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%d events in %d streams, %d findings\n", r.Events, r.Streams, len(r.Findings))
	if len(r.Findings) > 0 {
		return errors.New("the event log is not as it was recorded")
	}
	return nil
}

// Rebase is `horcrux events rebase`.
func Rebase() *cobra.Command {
	rebase := &cobra.Command{
		Use:   "rebase",
		Short: "Go on with an event log that was restored into another Postgres",
		Long: "Opens a new era in an event log that was restored from a dump. Nothing that is recorded changes; positions\n" +
			"of the new era come after all others. The server must not run.",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withDatabase(cmd, true, func(ctx context.Context, dsn string) error {
				era, err := postgres.Rebase(ctx, dsn)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "the log goes on in era %d\n", era)
				}
				return err
			})
		},
	}
	config.Register(rebase)
	return rebase
}

// withDatabase calls do with the database of the configuration: the one that is named, that of the running server, or
// the private one, started for as long as it takes. alone refuses where a server runs.
func withDatabase(cmd *cobra.Command, alone bool, do func(context.Context, string) error) error {
	c, err := config.Load(cmd.Flags(), os.LookupEnv)
	if err != nil {
		return cli.Usage(cmd, err)
	}
	ctx := cmd.Context()
	path, err := datadir.Find(c.DataDir, os.Getenv)
	if err != nil {
		return err
	}
	dir, err := datadir.OpenExisting(path)
	var used *datadir.InUseError
	switch {
	case errors.Is(err, datadir.ErrNone) && c.Database != "": // from another host
		return do(ctx, c.Database)
	case errors.As(err, &used) && alone:
		return err
	case errors.As(err, &used):
		if c.Database == "" {
			c.Database = pgserver.DSN((&datadir.Dir{Root: used.Root, Run: used.Run}).PostgresSockets(), pgserver.Database)
		}
		return do(ctx, c.Database)
	case err != nil:
		return err
	}
	defer dir.Close()
	if c.Database != "" {
		return do(ctx, c.Database)
	}
	pg, err := pgserver.Start(ctx, pgserver.Options{
		Dir: dir.Postgres(), SocketDir: dir.PostgresSockets(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	err = do(ctx, pg.DSN(pgserver.Database))
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	return errors.Join(err, pg.Stop(stop))
}
