// Package vault keeps secrets apart from the log: what is recorded and sent names a secret by its id, and only who has
// the master key can open it. Sealed secrets lie in Postgres; the key is a file that every node has.
package vault

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// keySize is that of AES-256.
const keySize = 32

// ErrUnknown: there is no secret of that id.
var ErrUnknown = errors.New("no such secret")

// ErrKey: the master key is not the one that sealed, or not here.
var ErrKey = errors.New("the master key is not the one that the secrets were sealed with")

// Vault seals and opens.
type Vault struct {
	pool    *pgxpool.Pool
	keyFile string
	aead    cipher.AEAD // nil without a key
	digests []byte      // the key of Digest
}

// probe is sealed under the nil id, so that another key is noticed at the start and not at the first use.
const probe = "horcrux"

// Open returns the vault in a database, with the key in a file. Who seals first makes it; where it is missing otherwise,
// the vault opens nothing (ErrKey) until it is brought from where it was made.
func Open(ctx context.Context, pool *pgxpool.Pool, keyFile string, seals bool) (*Vault, error) {
	err := pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended('vault', 0))`)
		if err == nil {
			_, err = tx.Exec(ctx, `CREATE SCHEMA IF NOT EXISTS vault`)
		}
		if err == nil {
			_, err = tx.Exec(ctx, `CREATE TABLE IF NOT EXISTS vault.secrets
				(id uuid PRIMARY KEY, sealed bytea NOT NULL, at timestamptz NOT NULL DEFAULT now())`)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	v := &Vault{pool: pool, keyFile: keyFile}
	sealed, err := v.load(ctx, uuid.Nil)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return nil, fmt.Errorf("open the vault: %w", err)
	}
	key, err := readKey(keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		if sealed != nil || !seals {
			return v, nil
		}
		key, err = makeKey(keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("master key %s: %w; restore it from a backup or from another node", keyFile, err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	if v.aead, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if v.digests, err = hkdf.Key(sha256.New, key, nil, "digest", keySize); err != nil {
		return nil, err
	}
	if sealed == nil {
		if err := v.store(ctx, uuid.Nil, []byte(probe)); err != nil {
			return nil, fmt.Errorf("open the vault: %w", err)
		}
		if sealed, err = v.load(ctx, uuid.Nil); err != nil { // another node may have been first
			return nil, fmt.Errorf("open the vault: %w", err)
		}
	}
	if _, err := v.open(uuid.Nil, sealed); err != nil {
		return nil, fmt.Errorf("%s: %w; restore it from a backup or from another node", keyFile, err)
	}
	return v, nil
}

func readKey(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("holds no key: %d bytes in base64 are wanted", keySize)
	}
	return key, nil
}

// makeKey never replaces a key: it appears whole or not at all.
func makeKey(path string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	f, err := os.CreateTemp(filepath.Dir(path), ".master.key-*") // 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(key))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if errors.Is(err, fs.ErrExist) {
		return readKey(path)
	}
	return key, err
}

// Keyless says that there is no key here, and where it is looked for.
func (v *Vault) Keyless() (path string, keyless bool) { return v.keyFile, v.aead == nil }

// Seal keeps a secret and returns the id by which it is named.
func (v *Vault) Seal(ctx context.Context, secret []byte) (uuid.UUID, error) {
	id := uuid.Must(uuid.NewV7())
	if err := v.store(ctx, id, secret); err != nil {
		return uuid.Nil, fmt.Errorf("seal a secret: %w", err)
	}
	return id, nil
}

func (v *Vault) store(ctx context.Context, id uuid.UUID, secret []byte) error {
	if v.aead == nil {
		return fmt.Errorf("%w: there is no %s", ErrKey, v.keyFile)
	}
	nonce := make([]byte, v.aead.NonceSize())
	rand.Read(nonce)
	sealed := v.aead.Seal(nonce, nonce, secret, id[:]) // the id is part of it: one cannot be put in another's place
	_, err := v.pool.Exec(ctx, `INSERT INTO vault.secrets (id, sealed) VALUES ($1, $2) ON CONFLICT DO NOTHING`, id, sealed)
	return err
}

// Digest tells data that holds a secret from other such data. Who has the digest and not the key cannot guess the secret
// from it. ErrKey.
func (v *Vault) Digest(data []byte) ([]byte, error) {
	if v.aead == nil {
		return nil, fmt.Errorf("%w: there is no %s", ErrKey, v.keyFile)
	}
	h := hmac.New(sha256.New, v.digests)
	h.Write(data)
	return h.Sum(nil), nil
}

// Open returns a secret. ErrUnknown, ErrKey.
func (v *Vault) Open(ctx context.Context, id uuid.UUID) ([]byte, error) {
	sealed, err := v.load(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", id, err)
	}
	secret, err := v.open(id, sealed)
	if err != nil {
		return nil, fmt.Errorf("open secret %s: %w", id, err)
	}
	return secret, nil
}

func (v *Vault) load(ctx context.Context, id uuid.UUID) (sealed []byte, err error) {
	err = v.pool.QueryRow(ctx, `SELECT sealed FROM vault.secrets WHERE id = $1`, id).Scan(&sealed)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, ErrUnknown
	}
	return sealed, err
}

func (v *Vault) open(id uuid.UUID, sealed []byte) ([]byte, error) {
	if v.aead == nil {
		return nil, fmt.Errorf("%w: there is no %s", ErrKey, v.keyFile)
	}
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return nil, ErrKey
	}
	secret, err := v.aead.Open(nil, sealed[:n], sealed[n:], id[:])
	if err != nil {
		return nil, ErrKey
	}
	return secret, nil
}
