-- +goose Up
-- write_views writes rows of views whether they exist or not.
-- +goose StatementBegin
CREATE FUNCTION api.write_views(gens bigint[], ids uuid[], kinds text[], names text[], docs text[], attrs jsonb[],
	versions bigint[], created timestamptz[], updated timestamptz[], deleted boolean[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO api.views AS v (gen, id, kind, name, doc, attrs, version, created_at, updated_at, deleted)
	SELECT * FROM unnest(gens, ids, kinds, names, docs, attrs, versions, created, updated, deleted)
	ON CONFLICT (gen, id) DO UPDATE SET name = excluded.name, doc = excluded.doc, attrs = excluded.attrs,
		version = excluded.version, updated_at = excluded.updated_at, deleted = excluded.deleted;
END $$;
-- +goose StatementEnd

-- project moves checkpoints that are still where they were, all of them or, with the error HX001, none, and writes the
-- rows of views. Those can be made anew from the log, so its transaction does not wait for the disk.
-- +goose StatementBegin
CREATE FUNCTION api.project(kinds text[], gens bigint[], eras smallint[], txs bigint[], seqs bigint[],
	old_eras smallint[], old_txs bigint[], old_seqs bigint[],
	v_gens bigint[], v_ids uuid[], v_kinds text[], v_names text[], v_docs text[], v_attrs jsonb[],
	v_versions bigint[], v_created timestamptz[], v_updated timestamptz[], v_deleted boolean[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	moved bigint;
BEGIN
	PERFORM set_config('synchronous_commit', 'off', true);
	UPDATE api.projections p SET era = n.era, tx = n.tx, seq = n.seq
		FROM unnest(kinds, gens, eras, txs, seqs, old_eras, old_txs, old_seqs)
			AS n (kind, gen, era, tx, seq, old_era, old_tx, old_seq)
		WHERE p.kind = n.kind AND p.gen = n.gen AND (p.era, p.tx, p.seq) = (n.old_era, n.old_tx, n.old_seq);
	GET DIAGNOSTICS moved = ROW_COUNT;
	IF moved <> cardinality(kinds) THEN
		RAISE EXCEPTION 'another gateway advanced the checkpoint' USING ERRCODE = 'HX001';
	END IF;
	IF cardinality(v_ids) > 0 THEN
		PERFORM api.write_views(v_gens, v_ids, v_kinds, v_names, v_docs, v_attrs, v_versions, v_created, v_updated, v_deleted);
	END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION api.project, api.write_views;
