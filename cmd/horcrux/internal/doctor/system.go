package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/cmd/horcrux/internal/datadir"
)

// ahead is how far a clock may be behind what it wrote itself before.
const ahead = time.Minute

// clock fails where the clock has gone back behind the last start, and warns where nobody keeps it right.
func clock(_ context.Context, h *host) Finding {
	chrony := h.install(source{"chrony", "net-misc/chrony"})
	if info, err := os.Stat(filepath.Join(h.DataDir, "lock")); err == nil {
		if by := time.Until(info.ModTime()); by > ahead {
			return fail(fmt.Sprintf("it is %s behind the last start of the server", by.Round(time.Second)), chrony)
		}
	}
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return warn("whether it is kept right could not be asked: "+err.Error(), asRoot("horcrux doctor"))
	}
	if state == unix.TIME_ERROR {
		return warn("nothing keeps it right", chrony)
	}
	return ok("", "kept right")
}

// fewFiles is less than a busy server needs: a hundred guests, each with followers and a console.
const fewFiles = 4096

func openFiles(context.Context, *host) Finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return warn("the limit could not be read: "+err.Error(), "")
	}
	what := fmt.Sprintf("at most %d", limit.Max) // which the server raises its own to
	if limit.Max < fewFiles {
		return warn(what, fmt.Sprintf("ulimit -Hn %d as root before the start, or LimitNOFILE= in its unit", fewFiles))
	}
	return ok("", what)
}

// dataDir looks whether the folder is there, or can be made, and whether this user may work in it.
func dataDir(_ context.Context, h *host) Finding {
	const elsewhere = "horcrux serve --data-dir <another>"
	info, err := os.Stat(h.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		above := existing(h.DataDir)
		if unix.Access(above, unix.W_OK|unix.X_OK) != nil {
			return fail(fmt.Sprintf("%s is not there, and %s may not make it in %s", h.DataDir, me(), above), "sudo horcrux serve, or "+elsewhere)
		}
		return ok("", h.DataDir+", which the first start will make")
	case errors.Is(err, fs.ErrPermission):
		return closed(h.DataDir, h)
	case err != nil:
		return fail(h.DataDir+": "+err.Error(), elsewhere)
	case !info.IsDir():
		return fail(h.DataDir+" is not a folder", elsewhere)
	case unix.Access(h.DataDir, unix.R_OK|unix.W_OK|unix.X_OK) != nil:
		return closed(h.DataDir, h)
	}
	pid, err := datadir.Holder(h.DataDir)
	if err != nil {
		return warn(h.DataDir+"; whether a server has it could not be seen: "+err.Error(), asRoot("horcrux doctor"))
	}
	if pid != 0 {
		return ok("", fmt.Sprintf("%s, in use by the server of pid %d", h.DataDir, pid))
	}
	return ok("", h.DataDir)
}

// closed is said of what this user may not look at, and who may.
func closed(path string, h *host) Finding {
	return warn(fmt.Sprintf("not looked at: %s is closed to %s", path, me()), "sudo horcrux doctor --data-dir "+h.DataDir)
}

func me() string { return fmt.Sprintf("uid %d", os.Geteuid()) }

// existing is path, or the nearest folder above it that exists.
func existing(path string) string {
	for {
		_, err := os.Stat(path)
		above := filepath.Dir(path)
		if err == nil || above == path {
			return path
		}
		path = above
	}
}

const (
	littleSpace = 2 << 30   // not room for much of a volume
	noSpace     = 256 << 20 // Postgres, which writes ahead, soon stops
)

func diskSpace(_ context.Context, h *host) Finding {
	at := existing(h.DataDir)
	var s unix.Statfs_t
	if err := unix.Statfs(at, &s); err != nil {
		return warn(at+": "+err.Error(), asRoot("horcrux doctor"))
	}
	free := s.Bavail * uint64(s.Bsize)
	what := fmt.Sprintf("%.1f of %.1f GiB free for %s", gib(free), gib(s.Blocks*uint64(s.Bsize)), at)
	mend := "df -h " + at + " and free some, or horcrux serve --data-dir <on another file system>"
	switch {
	case free < noSpace:
		return fail(what, mend)
	case free < littleSpace:
		return warn(what, mend)
	}
	return ok("", what)
}

func gib(bytes uint64) float64 { return float64(bytes) / (1 << 30) }

// imageDirs looks at the folders that were set; the data dir's own is made with it.
func imageDirs(_ context.Context, h *host) Finding {
	for _, dir := range h.Config.ImageDirs {
		info, err := os.Stat(dir)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return fail(dir+" is not there", "mkdir -p "+dir+", or take it out of image_dirs")
		case err == nil && !info.IsDir():
			return fail(dir+" is not a folder", "take it out of image_dirs")
		case err != nil || unix.Access(dir, unix.R_OK|unix.X_OK) != nil:
			return closed(dir, h)
		}
	}
	if len(h.Config.ImageDirs) == 0 {
		return ok("", filepath.Join(h.DataDir, "images"))
	}
	return ok("", fmt.Sprint(h.Config.ImageDirs))
}
