package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/puddle/v2"

	"horcrux/pkg/events"
	"horcrux/pkg/eventstore"
)

// SQLSTATEs that the functions of the schema raise.
const (
	codeWrongVersion = "ZH001" // detail: the stream
	codeNameTaken    = "ZH002" // detail: {"scope", "value", "stream"}
	codeKeyTaken     = "ZH003"
)

// appendError turns what the append function raised into the errors of the contract.
func appendError(err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return unavailable(err)
	}
	switch pg.Code {
	case codeWrongVersion:
		return fmt.Errorf("%s: %w", pg.Detail, eventstore.ErrWrongVersion)
	case codeKeyTaken:
		return eventstore.ErrKeyTaken
	case codeNameTaken:
		var taken struct {
			Scope, Value string
			Stream       events.Stream
		}
		if err := json.Unmarshal([]byte(pg.Detail), &taken); err != nil {
			return fmt.Errorf("holder of a name: %w", err)
		}
		return &eventstore.NameTakenError{
			Name: eventstore.Name{Scope: taken.Scope, Value: taken.Value}, Holder: taken.Stream,
		}
	}
	return unavailable(err)
}

// unavailable marks failures that are of the connection, of a server that is going, coming or full, or of time that
// ran out, with ErrUnavailable, and leaves others as they are.
func unavailable(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, eventstore.ErrUnavailable) {
		return err
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if !passing(pg.Code) {
			return err
		}
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	var (
		connect *pgconn.ConnectError
		network net.Error
	)
	if errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, puddle.ErrClosedPool) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("%w: %w", eventstore.ErrUnavailable, err)
	}
	return err
}

// passing says whether the same statement may succeed later on the same database.
func passing(code string) bool {
	switch code {
	case "25006", // read_only_sql_transaction: the primary is elsewhere now
		"55P03", // lock_not_available
		"57014": // query_canceled: a time-out of the server's
		return true
	}
	switch code[:2] {
	case "08", // connection exception
		"40", // transaction rollback: deadlock, serialization
		"53", // insufficient resources
		"57", // operator intervention: shutting down, starting up
		"58": // system error
		return true
	}
	return false
}
