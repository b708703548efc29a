package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// oldest is the first major version whose behaviour is relied on.
const oldest = 14

// ErrNotInstalled: no server program that fits was found.
var ErrNotInstalled = errors.New("no fitting PostgreSQL server is installed")

// places are where distributions keep the server programs that they leave out of PATH.
var places = []string{
	"/usr/lib/postgresql/*/bin",   // Debian
	"/usr/lib64/postgresql-*/bin", // Gentoo
	"/usr/lib/postgresql-*/bin",   // Gentoo without lib64
	"/usr/pgsql-*/bin",            // the PostgreSQL project's own packages
	"/usr/local/pgsql/bin",        // built from source
}

// binaries is a folder with the server programs of one version.
type binaries struct {
	dir   string
	major int
}

func (b binaries) path(program string) string { return filepath.Join(b.dir, program) }

// findBinaries returns the programs of the newest version installed, or of exactly major unless that is 0.
func findBinaries(ctx context.Context, major int) (binaries, error) {
	var found []binaries
	for _, dir := range candidates() {
		b, err := probe(ctx, dir)
		if err != nil || b.major < oldest || (major != 0 && b.major != major) {
			continue // a folder without a whole, running set of programs is passed over for one that has it
		}
		found = append(found, b)
	}
	if len(found) == 0 {
		want := fmt.Sprintf("version %d or newer", oldest)
		if major != 0 {
			want = fmt.Sprintf("version %d, which made the data", major)
		}
		return binaries{}, fmt.Errorf("%w: need %s; on Debian apt-get install postgresql, on Gentoo "+
			"emerge dev-db/postgresql", ErrNotInstalled, want)
	}
	return slices.MaxFunc(found, func(a, b binaries) int { return cmp.Compare(a.major, b.major) }), nil
}

// candidates lists the folders that hold a program called postgres, each once.
func candidates() []string {
	var programs []string
	if p, err := exec.LookPath("postgres"); err == nil {
		programs = append(programs, p)
	}
	for _, place := range places {
		matches, err := filepath.Glob(filepath.Join(place, "postgres"))
		if err != nil {
			panic(err) // a pattern of ours is malformed
		}
		programs = append(programs, matches...)
	}
	var dirs []string
	for _, p := range programs {
		if real, err := filepath.EvalSymlinks(p); err == nil && !slices.Contains(dirs, filepath.Dir(real)) {
			dirs = append(dirs, filepath.Dir(real))
		}
	}
	return dirs
}

// probe asks the programs of a folder for their version.
func probe(ctx context.Context, dir string) (binaries, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	b := binaries{dir: dir}
	if _, err := exec.LookPath(b.path("initdb")); err != nil {
		return binaries{}, err
	}
	out, err := exec.CommandContext(ctx, b.path("postgres"), "--version").Output()
	if err != nil {
		return binaries{}, err
	}
	b.major, err = parseVersion(string(out))
	return b, err
}

// parseVersion reads the major version out of "postgres (PostgreSQL) 17.2 (Debian 17.2-1)" or "… 18beta1".
func parseVersion(line string) (int, error) {
	_, rest, ok := strings.Cut(line, "(PostgreSQL) ")
	if !ok {
		return 0, fmt.Errorf("%q is not the version of a PostgreSQL server", line)
	}
	digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
	return strconv.Atoi(rest[:digits])
}
