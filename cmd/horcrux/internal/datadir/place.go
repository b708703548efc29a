package datadir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"

	"horcrux/pkg/osuser"
)

// socketLimit is the longest path that a socket may have here. The kernel's own limit is 107 bytes; clients add
// suffixes of their own.
const socketLimit = 100

// guests are the OS users that root's daemons run as, under the names that distributions give them.
var guests = []string{"postgres", "libvirt-qemu", "qemu"}

// bases are the folders for data and sockets that cannot stay where they were asked for.
type bases struct {
	state string
	run   string
	users []string // who has to get to the data when this process is root
}

var system = bases{state: "/var/lib", run: "/run", users: guests}

// prefix marks the folders under bases.
const prefix = "horcrux-"

// place settles where data and sockets lie and makes those folders.
func (b bases) place(path string) (*Dir, error) {
	asked, err := absolute(path)
	if err != nil {
		return nil, err
	}
	// A link is followed by hand, since what it points to may be gone or be yet to be made.
	target := asked
	if to, err := os.Readlink(asked); err == nil {
		if target = to; !filepath.IsAbs(to) {
			target = filepath.Join(filepath.Dir(asked), to)
		}
	}
	if filepath.Dir(target) == b.state && strings.HasPrefix(filepath.Base(target), prefix) {
		return b.elsewhere(asked, target, "")
	}
	obstacle := b.obstacle(target)
	switch {
	case obstacle == "":
		return makeFolders(&Dir{Root: target, Run: target})
	case os.Geteuid() != 0:
		return b.socketsElsewhere(target, obstacle)
	case target != asked || occupied(asked):
		return nil, fmt.Errorf("%s: move %s away, or choose another --data-dir", obstacle, target)
	}
	return b.elsewhere(asked, filepath.Join(b.state, prefix+hash(asked)), obstacle)
}

// elsewhere puts the data in root and the sockets in a folder of the same name, and makes asked a link.
func (b bases) elsewhere(asked, root, why string) (*Dir, error) {
	d := &Dir{Root: root, Run: filepath.Join(b.run, filepath.Base(root))}
	if why == "" {
		why = asked + " is a link"
	}
	d.Notice = fmt.Sprintf("%s: the data lies in %s, its sockets in %s", why, d.Root, d.Run)
	d, err := makeFolders(d)
	if err != nil || asked == root {
		return d, err
	}
	if err := os.MkdirAll(filepath.Dir(asked), 0o755); err != nil {
		return nil, err
	}
	return d, link(root, asked)
}

// socketsElsewhere leaves the data of an ordinary user where it was asked for and finds a short path for its sockets.
func (b bases) socketsElsewhere(root, why string) (*Dir, error) {
	run := os.Getenv("XDG_RUNTIME_DIR")
	if run == "" {
		run = os.TempDir()
	}
	d := &Dir{Root: root, Run: filepath.Join(run, prefix+hash(root))}
	d.Notice = fmt.Sprintf("%s: the sockets lie in %s", why, d.Run)
	d, err := makeFolders(d)
	if err != nil {
		return nil, err
	}
	// In a folder that all may write to, somebody else could have been first.
	info, err := os.Lstat(d.Run)
	if err != nil {
		return nil, err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(stat.Uid) != os.Geteuid() {
		return nil, fmt.Errorf("%s belongs to somebody else", d.Run)
	}
	return d, nil
}

// makeFolders makes the two folders of a placement.
func makeFolders(d *Dir) (*Dir, error) {
	for _, dir := range []string{d.Root, d.Run} {
		if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
			return nil, err
		}
		if err := mkdir(dir, passable()); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// obstacle says what keeps data and sockets from lying in dir, "" when nothing does.
func (b bases) obstacle(dir string) string {
	if os.Geteuid() == 0 {
		for _, name := range b.users {
			u, err := osuser.Lookup(name)
			var unknown user.UnknownUserError
			if errors.As(err, &unknown) {
				continue // the daemon is not installed, or goes by another name here
			}
			if err == nil {
				err = u.Reach(dir)
			}
			if err != nil {
				return err.Error()
			}
		}
	}
	if n := len(filepath.Join(dir, longestSocket)); n > socketLimit {
		return fmt.Sprintf("sockets in %s would have paths of %d bytes, over %d", dir, n, socketLimit)
	}
	return ""
}

// occupied says whether dir is there and is more than an empty folder.
func occupied(dir string) bool {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	return err != nil || len(entries) > 0
}

// absolute resolves the links on the way to path, which need not exist, but not path itself.
func absolute(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	parent := filepath.Dir(path)
	if path == parent {
		return "", fmt.Errorf("%s cannot be a data dir", path)
	}
	resolved, err := filepath.EvalSymlinks(parent)
	if errors.Is(err, fs.ErrNotExist) {
		if resolved, err = absolute(parent); err != nil {
			return "", err
		}
	} else if err != nil {
		return "", err
	}
	return filepath.Join(resolved, filepath.Base(path)), nil
}

func hash(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:6])
}
