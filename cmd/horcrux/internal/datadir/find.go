package datadir

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"horcrux/pkg/client"
)

// Find returns the data dir that a command beside the server means: the one asked for, else that of the server which a
// client of this environment would ask, else the one that a server would take. It need not exist.
func Find(asked string, getenv func(string) string) (string, error) {
	if place, err := client.Find(getenv); asked == "" && err == nil {
		asked = place.DataDir
	}
	return absolute(Resolve(asked))
}

// ErrNone: there is no data dir yet.
var ErrNone = errors.New("there is no installation")

// OpenExisting is Open for what works on an installation and must not begin one. The error is ErrNone where there is
// none.
func OpenExisting(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, "lock")); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w in %s: name its --data-dir", ErrNone, path)
	}
	return Open(path)
}
