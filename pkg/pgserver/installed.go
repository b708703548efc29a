package pgserver

import (
	"context"
	"strconv"
)

// Installed returns the server program that Start would run on the data in dir, and its major version; without data the
// newest one. It changes nothing.
func Installed(ctx context.Context, dir string) (program, version string, err error) {
	major, err := (&cluster{dir: dir}).version()
	if err != nil {
		return "", "", err
	}
	b, err := findBinaries(ctx, major)
	if err != nil {
		return "", "", err
	}
	return b.path("postgres"), strconv.Itoa(b.major), nil
}
