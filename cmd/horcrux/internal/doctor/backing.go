package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net/url"
	"os"
	"os/user"
	"path/filepath"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"horcrux/pkg/pgserver"
)

const (
	leastPostgres = "14"
	leastNATS     = "2.11" // of which a message can outlive its stream's limit of age
)

var postgresSource = source{"postgresql", "dev-db/postgresql"}

// postgresProgram looks for the programs of the private Postgres, and who is to run them.
func postgresProgram(ctx context.Context, h *host) Finding {
	program, version, err := pgserver.Installed(ctx, filepath.Join(h.DataDir, "postgres"))
	if errors.Is(err, fs.ErrPermission) {
		return closed(filepath.Join(h.DataDir, "postgres"), h)
	}
	if errors.Is(err, pgserver.ErrNotInstalled) {
		return fail(why(ctx, err), h.install(postgresSource))
	}
	if err != nil {
		return fail(why(ctx, err), "restore the data dir, or horcrux serve --data-dir <another>")
	}
	if _, err := user.Lookup("postgres"); os.Geteuid() == 0 && err != nil {
		return fail("no OS user postgres, as which root has to run it", h.install(postgresSource))
	}
	return ok(version, program)
}

// database asks the Postgres that is named.
func database(ctx context.Context, h *host) Finding {
	const mend = "psql with the value of --database, and see that server's log"
	conn, err := pgx.Connect(ctx, h.Config.Database)
	if err != nil {
		return fail(why(ctx, err), mend) // pgx keeps the password out of it
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing is left to lose on it
	var version string
	if err := conn.QueryRow(ctx, "SHOW server_version").Scan(&version); err != nil {
		return fail(why(ctx, err), mend)
	}
	if older(version, leastPostgres) {
		return Finding{Status: Fail, Version: version, What: "older than " + leastPostgres, Mend: h.install(postgresSource)}
	}
	return ok(version, "answers on "+conn.Config().Host)
}

// broker asks the NATS server that is named, and whether it has JetStream.
func broker(ctx context.Context, h *host) Finding {
	const mend = "nats-server --jetstream at the address of --nats, and its log"
	options := []nats.Option{nats.Name("horcrux doctor"), nats.NoReconnect(), nats.Timeout(h.Timeout)}
	if c := h.Config.NATS.Credentials; c != "" {
		options = append(options, nats.UserCredentials(c))
	}
	nc, err := nats.Connect(h.Config.NATS.URL, options...)
	if malformed := (*url.Error)(nil); errors.As(err, &malformed) {
		return fail("nats.url is no URL", "horcrux serve --check-config") // its text would show a password
	}
	if err != nil {
		return fail(why(ctx, err), mend)
	}
	defer nc.Close()
	version := nc.ConnectedServerVersion()
	js, err := jetstream.New(nc)
	if err == nil {
		_, err = js.AccountInfo(ctx)
	}
	if err != nil {
		return Finding{Status: Fail, Version: version, What: "JetStream: " + why(ctx, err), Mend: mend}
	}
	if older(version, leastNATS) {
		return Finding{Status: Fail, Version: version, What: "older than " + leastNATS, Mend: "a newer nats-server"}
	}
	return ok(version, "answers, with JetStream")
}
