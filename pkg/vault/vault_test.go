package vault_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"

	"horcrux/pkg/pgserver/pgtest"
	"horcrux/pkg/vault"
)

func TestVault(t *testing.T) {
	ctx := t.Context()
	pool, err := pgxpool.New(ctx, pgtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	key := filepath.Join(t.TempDir(), "master.key")
	v, err := vault.Open(ctx, pool, key, true)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("the key's file: %v, %v", st, err)
	}
	secret := []byte("open sesame")
	id, err := v.Seal(ctx, secret)
	if err != nil {
		t.Fatal(err)
	}
	other, err := v.Seal(ctx, []byte("another"))
	if err != nil {
		t.Fatal(err)
	}

	t.Run("opens what it sealed, also in another life", func(t *testing.T) {
		again, err := vault.Open(ctx, pool, key, true)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range []*vault.Vault{v, again} {
			if got, err := v.Open(ctx, id); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("got %q, %v", got, err)
			}
		}
	})
	t.Run("keeps nothing that can be read", func(t *testing.T) {
		var sealed []byte
		if err := pool.QueryRow(ctx, `SELECT sealed FROM vault.secrets WHERE id = $1`, id).Scan(&sealed); err != nil || bytes.Contains(sealed, secret) {
			t.Errorf("%q, %v", sealed, err)
		}
	})
	t.Run("tells data apart by what only the key can make", func(t *testing.T) {
		digest := func(v *vault.Vault, data []byte) string {
			d, err := v.Digest(data)
			if err != nil {
				t.Fatal(err)
			}
			return string(d)
		}
		again, err := vault.Open(ctx, pool, key, true)
		if err != nil {
			t.Fatal(err)
		}
		plain := sha256.Sum256(secret)
		if got := digest(v, secret); got != digest(again, secret) || got == digest(v, []byte("another")) || got == string(plain[:]) {
			t.Errorf("%x", got)
		}
	})
	t.Run("knows no other ids", func(t *testing.T) {
		if _, err := v.Open(ctx, uuid.New()); !errors.Is(err, vault.ErrUnknown) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("takes no secret for another", func(t *testing.T) {
		if _, err := pool.Exec(ctx, `UPDATE vault.secrets SET sealed = (SELECT sealed FROM vault.secrets WHERE id = $1) WHERE id = $2`, id, other); err != nil {
			t.Fatal(err)
		}
		if _, err := v.Open(ctx, other); !errors.Is(err, vault.ErrKey) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("refuses another key, a lost one and rubbish, and makes none in their place", func(t *testing.T) {
		dir := t.TempDir()
		lost := filepath.Join(dir, "lost.key")
		keyless, err := vault.Open(ctx, pool, lost, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, without := keyless.Keyless(); !without {
			t.Error("has a key")
		}
		if _, err := keyless.Open(ctx, id); !errors.Is(err, vault.ErrKey) {
			t.Errorf("opens without its key: %v", err)
		}
		if _, err := keyless.Seal(ctx, secret); !errors.Is(err, vault.ErrKey) {
			t.Errorf("seals without its key: %v", err)
		}
		if _, err := keyless.Digest(secret); !errors.Is(err, vault.ErrKey) {
			t.Errorf("digests without its key: %v", err)
		}
		if _, err := os.Stat(lost); err == nil {
			t.Error("made a key that opens nothing")
		}
		rubbish := filepath.Join(dir, "rubbish.key")
		if err := os.WriteFile(rubbish, []byte("key\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Open(ctx, pool, rubbish, true); err == nil {
			t.Error("opens with rubbish")
		}
		foreign := filepath.Join(dir, "foreign.key")
		if err := os.WriteFile(foreign, []byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := vault.Open(ctx, pool, foreign, true); !errors.Is(err, vault.ErrKey) {
			t.Errorf("got %v", err)
		}
	})
}
