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

// OpenExisting is Open for what works on an installation and must not begin one.
func OpenExisting(path string) (*Dir, error) {
	if _, err := os.Stat(filepath.Join(path, "lock")); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no installation in %s: name its --data-dir", path)
	}
	return Open(path)
}
