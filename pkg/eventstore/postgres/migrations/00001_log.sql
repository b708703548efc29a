-- The log, the heads of its streams, and what is recorded in the same transactions: names, commands, requests.

-- +goose Up
CREATE TABLE eventstore.eras (
    era    smallint PRIMARY KEY,
    opened timestamptz NOT NULL DEFAULT now()
);
INSERT INTO eventstore.eras (era) VALUES (1);

CREATE TABLE eventstore.events (
    era       smallint NOT NULL,
    tx        xid8 NOT NULL DEFAULT pg_current_xact_id(),
    seq       bigint GENERATED ALWAYS AS IDENTITY,
    id        uuid NOT NULL UNIQUE,
    stream    text COLLATE "C" NOT NULL,
    version   bigint NOT NULL,
    type      text COLLATE "C" NOT NULL,
    schema    smallint NOT NULL,
    data      jsonb NOT NULL,
    meta      jsonb NOT NULL,
    at        timestamptz NOT NULL,
    prev_hash bytea NOT NULL, -- empty for the first event of a stream
    hash      bytea NOT NULL,
    PRIMARY KEY (stream, version)
);
CREATE UNIQUE INDEX events_position ON eventstore.events (era, tx, seq);

-- Open is the address that has to finish what the stream's last events began.
CREATE TABLE eventstore.heads (
    stream  text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL,
    hash    bytea NOT NULL,
    at      timestamptz NOT NULL,
    open    text COLLATE "C"
) WITH (fillfactor = 80);
CREATE INDEX heads_open ON eventstore.heads (open) WHERE open IS NOT NULL;

CREATE TABLE eventstore.names (
    scope  text COLLATE "C" NOT NULL,
    value  text COLLATE "C" NOT NULL,
    stream text COLLATE "C" NOT NULL,
    PRIMARY KEY (scope, value)
);

-- A row is both the outbox of a sent command, until it is decided, and the memory of its outcome. A command that was
-- decided without having been sent has only the latter.
CREATE TABLE eventstore.commands (
    command_id   uuid PRIMARY KEY,
    command      jsonb,
    recorded     timestamptz NOT NULL,
    attempts     integer NOT NULL DEFAULT 0,
    next_attempt timestamptz,
    decided      timestamptz,
    rejection    jsonb,
    era          smallint, -- position of the last event that the command appended
    tx           xid8,
    seq          bigint
) WITH (fillfactor = 80);
CREATE INDEX commands_due ON eventstore.commands (next_attempt) WHERE decided IS NULL;
-- Rows are decided nearly in the order in which they lie, so this costs an append nothing.
CREATE INDEX commands_decided ON eventstore.commands USING brin (decided);

CREATE TABLE eventstore.requests (
    actor     text COLLATE "C" NOT NULL,
    key       text COLLATE "C" NOT NULL,
    request   bytea NOT NULL,
    operation uuid NOT NULL,
    recorded  timestamptz NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX requests_recorded ON eventstore.requests (recorded);

-- +goose StatementBegin
CREATE FUNCTION eventstore.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the event log is append-only: % refused', TG_OP USING ERRCODE = 'ZH004';
END
$$;
-- +goose StatementEnd
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON eventstore.events
    FOR EACH STATEMENT EXECUTE FUNCTION eventstore.refuse_change();
-- Always: also for a session that plays a replica.
ALTER TABLE eventstore.events ENABLE ALWAYS TRIGGER append_only;

-- +goose Down
DROP TABLE eventstore.requests, eventstore.commands, eventstore.names, eventstore.heads, eventstore.events, eventstore.eras;
DROP FUNCTION eventstore.refuse_change();
