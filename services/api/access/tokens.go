package access

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// AdminToken is the name of the first administrator's token, and AdminTokenFile the file in the data dir that has it.
const (
	AdminToken     = "admin"
	AdminTokenFile = "admin.token"
)

// tokenForm is hx_ and 32 bytes in base64url.
var tokenForm = regexp.MustCompile(`^hx_[A-Za-z0-9_-]{43}$`)

func newToken() string {
	var b [32]byte
	rand.Read(b[:])
	return "hx_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// Tokens are bearer tokens. Only their SHA-256 is stored.
type Tokens struct{ Pool *pgxpool.Pool }

// EnsureAdmin makes the first administrator's token file, mode 0600, unless it is there, and lets its token in. It
// returns the path. An administrator who deletes the file gets a new token at the next start; the old one is void.
func (t Tokens) EnsureAdmin(ctx context.Context, dir string) (string, error) {
	path := filepath.Join(dir, AdminTokenFile)
	token, err := readToken(path)
	if errors.Is(err, os.ErrNotExist) {
		token = newToken()
		err = writeSecret(path, []byte(token+"\n"))
	}
	if err != nil {
		return "", fmt.Errorf("administrator's token: %w", err)
	}
	hash := sha256.Sum256([]byte(token))
	const statement = `INSERT INTO api.tokens (hash, name) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET hash = excluded.hash, created_at = now() WHERE tokens.hash <> excluded.hash`
	if _, err := t.Pool.Exec(ctx, statement, hash[:], AdminToken); err != nil {
		return "", fmt.Errorf("administrator's token: %w", err)
	}
	return path, nil
}

func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if !tokenForm.MatchString(token) {
		return "", fmt.Errorf("%s holds no token; delete it to get a new one at the next start", path)
	}
	return token, nil
}

// writeSecret writes a file whole or not at all, readable by its owner alone.
func writeSecret(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Caller is who sends a request with a bearer token; nobody without a valid one. It fails when the database does.
func (t Tokens) Caller(r *http.Request) (Caller, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || !tokenForm.MatchString(token) {
		return Caller{}, nil
	}
	hash := sha256.Sum256([]byte(token))
	var stored []byte
	var name string
	err := t.Pool.QueryRow(r.Context(), `SELECT hash, name FROM api.tokens WHERE hash = $1`, hash[:]).Scan(&stored, &name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return Caller{}, nil
	case err != nil:
		return Caller{}, fmt.Errorf("look up token: %w", err)
	case subtle.ConstantTimeCompare(stored, hash[:]) != 1:
		return Caller{}, nil
	}
	return Caller{Actor: "token:" + name, Auth: "token", Administrator: true}, nil
}

// Authenticate says who sends a request: a context that has a caller already (Peer) wins over a token.
func (t Tokens) Authenticate(r *http.Request) (Caller, error) {
	if c := From(r.Context()); c.Actor != "" {
		return c, nil
	}
	return t.Caller(r)
}
