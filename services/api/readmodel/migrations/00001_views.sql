-- +goose Up
CREATE SEQUENCE api.generation;

-- Where the live generation of each kind stands in the log.
CREATE TABLE api.projections (
	kind text PRIMARY KEY,
	gen  bigint NOT NULL,
	era  smallint NOT NULL DEFAULT 0,
	tx   bigint NOT NULL DEFAULT 0,
	seq  bigint NOT NULL DEFAULT 0
);

CREATE TABLE api.views (
	gen        bigint NOT NULL,
	id         uuid NOT NULL,
	kind       text NOT NULL,
	name       text NOT NULL COLLATE "C",
	doc        text NOT NULL, -- as lists return it
	attrs      jsonb NOT NULL, -- what lists filter and sort by
	version    bigint NOT NULL,
	created_at timestamptz NOT NULL,
	updated_at timestamptz NOT NULL,
	deleted    boolean NOT NULL,
	PRIMARY KEY (gen, id)
);
CREATE INDEX views_name ON api.views (gen, name, id) WHERE NOT deleted;
CREATE INDEX views_created ON api.views (gen, created_at, id) WHERE NOT deleted;
CREATE INDEX views_attrs ON api.views USING gin (attrs jsonb_path_ops) WHERE NOT deleted;

-- +goose Down
DROP TABLE api.views;
DROP TABLE api.projections;
DROP SEQUENCE api.generation;
