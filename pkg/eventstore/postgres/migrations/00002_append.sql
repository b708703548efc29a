-- The append. Order matters, see docs/adr/0002.

-- +goose Up
-- lock takes the locks of an append in the order that all appenders keep: the command, then the streams. It takes no
-- transaction id; whoever writes before it would give a later version an earlier transaction, so that is refused.
-- +goose StatementBegin
CREATE FUNCTION eventstore.lock(_command uuid, _streams text[]) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'an append needs isolation level read committed' USING ERRCODE = 'ZH005';
    END IF;
    IF _command IS NOT NULL THEN
        PERFORM pg_advisory_xact_lock(hashtextextended(_command::text, 1));
    END IF;
    PERFORM pg_advisory_xact_lock(k)
       FROM (SELECT DISTINCT hashtextextended(s, 0) AS k FROM unnest(_streams) s ORDER BY k) keys;
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN
        RAISE EXCEPTION 'the transaction wrote before it took the locks' USING ERRCODE = 'ZH005';
    END IF;
END
$$;
-- +goose StatementEnd

-- claim releases and claims names: [{"stream", "scope", "value", "claim": bool}].
-- +goose StatementBegin
CREATE FUNCTION eventstore.claim(_names jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    _claimed bigint;
    _taken   record;
BEGIN
    PERFORM pg_advisory_xact_lock(k)
       FROM (SELECT DISTINCT hashtextextended(jsonb_build_array(n.scope, n.value)::text, 2) AS k
               FROM jsonb_to_recordset(_names) AS n(scope text, value text) ORDER BY k) keys;
    IF _names @? '$[*] ? (@.claim == false)' THEN
        DELETE FROM eventstore.names h
         USING jsonb_to_recordset(_names) AS n(stream text, scope text, value text, claim boolean)
         WHERE NOT n.claim AND (h.scope, h.value, h.stream) = (n.scope, n.value, n.stream);
    END IF;
    INSERT INTO eventstore.names (scope, value, stream)
    SELECT n.scope, n.value, n.stream
      FROM jsonb_to_recordset(_names) AS n(stream text, scope text, value text, claim boolean)
     WHERE n.claim
        ON CONFLICT (scope, value) DO NOTHING;
    GET DIAGNOSTICS _claimed = ROW_COUNT;
    IF _claimed = jsonb_array_length(_names) THEN
        RETURN;
    END IF;
    SELECT h.scope, h.value, h.stream INTO _taken
      FROM jsonb_to_recordset(_names) AS n(stream text, scope text, value text, claim boolean)
      JOIN eventstore.names h ON (h.scope, h.value) = (n.scope, n.value)
     WHERE n.claim AND h.stream <> n.stream
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'name taken' USING ERRCODE = 'ZH002', DETAIL = to_jsonb(_taken)::text;
    END IF;
END
$$;
-- +goose StatementEnd

-- append is one append. Arrays of one prefix run in parallel; _ends holds the index of each stream's last event, 0
-- where a stream is only compared. A position without tx is of an append without events.
-- +goose StatementBegin
CREATE FUNCTION eventstore.append(
    _now timestamptz, _command uuid, _rejection jsonb, _meta jsonb,
    _streams text[], _heads bigint[], _prev bytea[], _open text[], _ends integer[],
    _event_streams text[], _versions bigint[], _ids uuid[], _types text[], _schemas smallint[], _data jsonb[],
    _ats timestamptz[], _prev_hashes bytea[], _hashes bytea[],
    _names jsonb, _send jsonb[], _request jsonb,
    OUT duplicate boolean, OUT rejection jsonb, OUT era smallint, OUT tx xid8, OUT seqs bigint[]
) LANGUAGE plpgsql VOLATILE AS $$
#variable_conflict use_column
DECLARE
    _n   record;
    _seq bigint;
    _c   jsonb;
    _e   integer;
BEGIN
    PERFORM eventstore.lock(_command, _streams);
    duplicate := false;
    rejection := _rejection;

    IF _command IS NOT NULL THEN
        SELECT true, c.rejection, c.era, c.tx, array_remove(ARRAY[c.seq], NULL) INTO duplicate, rejection, era, tx, seqs
          FROM eventstore.commands c WHERE c.command_id = _command AND c.decided IS NOT NULL;
        IF duplicate THEN
            RETURN;
        END IF;
        duplicate := false;
        rejection := _rejection;
    END IF;

    IF _request IS NOT NULL THEN
        PERFORM eventstore.remember(_now, _request);
    END IF;

    FOR i IN 1 .. cardinality(_streams) LOOP
        _e := _ends[i];
        IF _e = 0 THEN
            PERFORM 1 FROM eventstore.heads h
              WHERE h.stream = _streams[i] AND (h.version <> _heads[i] OR h.hash <> _prev[i]);
            IF FOUND OR _heads[i] > 0 AND NOT EXISTS (SELECT 1 FROM eventstore.heads h WHERE h.stream = _streams[i]) THEN
                RAISE EXCEPTION 'wrong version' USING ERRCODE = 'ZH001', DETAIL = _streams[i];
            END IF;
            CONTINUE;
        END IF;
        IF _heads[i] = 0 THEN
            INSERT INTO eventstore.heads (stream, version, hash, at, open)
            VALUES (_streams[i], _versions[_e], _hashes[_e], _ats[_e], nullif(_open[i], ''))
                ON CONFLICT DO NOTHING;
        ELSE
            UPDATE eventstore.heads h
               SET version = _versions[_e], hash = _hashes[_e], at = _ats[_e], open = nullif(_open[i], '')
             WHERE h.stream = _streams[i] AND h.version = _heads[i] AND h.hash = _prev[i];
        END IF;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'wrong version' USING ERRCODE = 'ZH001', DETAIL = _streams[i];
        END IF;
    END LOOP;

    IF cardinality(_ids) > 0 THEN
        -- The era is read after the heads are written: Rebase holds their table while it opens one.
        era := (SELECT max(r.era) FROM eventstore.eras r);
        tx := pg_current_xact_id();
        FOR _n IN SELECT * FROM unnest(_event_streams, _versions, _ids, _types, _schemas, _data, _ats, _prev_hashes, _hashes)
                    AS n(stream, version, id, type, schema, data, at, prev_hash, hash) LOOP
            INSERT INTO eventstore.events AS v
                   (era, stream, version, id, type, schema, data, meta, at, prev_hash, hash)
            VALUES (era, _n.stream, _n.version, _n.id, _n.type, _n.schema, _n.data, _meta, _n.at, _n.prev_hash, _n.hash)
            RETURNING v.seq INTO _seq;
            seqs := seqs || _seq;
        END LOOP;
    END IF;

    IF _names IS NOT NULL THEN
        PERFORM eventstore.claim(_names);
    END IF;

    IF _send IS NOT NULL THEN
        FOREACH _c IN ARRAY _send LOOP
            INSERT INTO eventstore.commands (command_id, command, recorded, next_attempt)
            VALUES ((_c ->> 'id')::uuid, _c, _now, _now + interval '5 seconds')
                ON CONFLICT DO NOTHING;
        END LOOP;
    END IF;

    IF _command IS NOT NULL THEN
        INSERT INTO eventstore.commands AS c (command_id, recorded, decided, rejection, era, tx, seq)
        VALUES (_command, _now, _now, _rejection, era, tx, _seq)
            ON CONFLICT (command_id) DO UPDATE
           SET command = NULL, decided = excluded.decided, rejection = excluded.rejection,
               era = excluded.era, tx = excluded.tx, seq = excluded.seq;
    END IF;
END
$$;
-- +goose StatementEnd

-- remember records a request under its idempotency key. Each also clears away two that are out of date, so that the
-- table stays as large as a day's requests.
-- +goose StatementBegin
CREATE FUNCTION eventstore.remember(_now timestamptz, _request jsonb) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    DELETE FROM eventstore.requests r
     USING (SELECT o.actor, o.key FROM eventstore.requests o WHERE o.recorded <= _now - interval '24 hours'
             ORDER BY o.recorded LIMIT 2 FOR UPDATE SKIP LOCKED) old
     WHERE (r.actor, r.key) = (old.actor, old.key);
    INSERT INTO eventstore.requests AS r (actor, key, request, operation, recorded)
    VALUES (_request ->> 'actor', _request ->> 'key', decode(_request ->> 'request', 'base64'),
            (_request ->> 'operation')::uuid, _now)
        ON CONFLICT (actor, key) DO UPDATE
       SET request = excluded.request, operation = excluded.operation, recorded = excluded.recorded
     WHERE r.recorded <= _now - interval '24 hours';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'idempotency key taken' USING ERRCODE = 'ZH003';
    END IF;
END
$$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION eventstore.append, eventstore.remember, eventstore.claim, eventstore.lock;
