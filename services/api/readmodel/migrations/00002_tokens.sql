-- +goose Up
CREATE TABLE api.tokens (
	hash       bytea PRIMARY KEY, -- SHA-256 of the token
	name       text NOT NULL UNIQUE,
	created_at timestamptz NOT NULL DEFAULT now()
);

-- +goose Down
DROP TABLE api.tokens;
