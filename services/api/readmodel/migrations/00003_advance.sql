-- +goose Up
-- advance moves checkpoints that are still where they were, all of them or, with the error HX001, none.
-- +goose StatementBegin
CREATE FUNCTION api.advance(kinds text[], gens bigint[], eras smallint[], txs bigint[], seqs bigint[],
	old_eras smallint[], old_txs bigint[], old_seqs bigint[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	moved bigint;
BEGIN
	UPDATE api.projections p SET era = n.era, tx = n.tx, seq = n.seq
		FROM unnest(kinds, gens, eras, txs, seqs, old_eras, old_txs, old_seqs)
			AS n (kind, gen, era, tx, seq, old_era, old_tx, old_seq)
		WHERE p.kind = n.kind AND p.gen = n.gen AND (p.era, p.tx, p.seq) = (n.old_era, n.old_tx, n.old_seq);
	GET DIAGNOSTICS moved = ROW_COUNT;
	IF moved <> cardinality(kinds) THEN
		RAISE EXCEPTION 'another gateway advanced the checkpoint' USING ERRCODE = 'HX001';
	END IF;
END $$;
-- +goose StatementEnd

-- +goose Down
DROP FUNCTION api.advance;
