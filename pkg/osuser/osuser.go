// Package osuser answers what another user of this machine may do: who it is, how a process is started as it, and
// whether it can get to a path. A daemon that gives up root (Postgres, QEMU) needs an answer before it is started,
// since its own complaint about a closed folder names neither the folder nor the user.
package osuser

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
)

// User is an account with the groups that it is in.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32
}

// Current returns the user that this process runs as.
func Current() (User, error) {
	u, err := user.Current()
	if err != nil {
		return User{}, fmt.Errorf("look up the current user: %w", err)
	}
	return resolve(u)
}

// Lookup returns the user of a name. The error of an unknown one matches user.UnknownUserError.
func Lookup(name string) (User, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return User{}, fmt.Errorf("look up user %s: %w", name, err)
	}
	return resolve(u)
}

// ByUID returns the user of a numeric id.
func ByUID(uid uint32) (User, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return User{}, fmt.Errorf("look up uid %d: %w", uid, err)
	}
	return resolve(u)
}

func resolve(u *user.User) (User, error) {
	uid, err := parse(u.Uid)
	if err != nil {
		return User{}, fmt.Errorf("uid of %s: %w", u.Username, err)
	}
	gid, err := parse(u.Gid)
	if err != nil {
		return User{}, fmt.Errorf("gid of %s: %w", u.Username, err)
	}
	ids, err := u.GroupIds()
	if err != nil {
		return User{}, fmt.Errorf("groups of %s: %w", u.Username, err)
	}
	groups := make([]uint32, 0, len(ids))
	for _, id := range ids {
		g, err := parse(id)
		if err != nil {
			return User{}, fmt.Errorf("groups of %s: %w", u.Username, err)
		}
		groups = append(groups, g)
	}
	return User{Name: u.Username, UID: uid, GID: gid, Groups: groups}, nil
}

func parse(id string) (uint32, error) {
	n, err := strconv.ParseUint(id, 10, 32)
	return uint32(n), err
}

// Credential returns what starts a process as u, nil where this process is u already or is not root, and so could not
// become another.
func (u User) Credential() *syscall.Credential {
	if os.Geteuid() != 0 || u.UID == 0 {
		return nil
	}
	return &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
}

// ClosedError says which folder keeps a user out.
type ClosedError struct {
	User string
	Dir  string
	Mode fs.FileMode
}

func (e *ClosedError) Error() string {
	return fmt.Sprintf("user %s cannot enter %s (mode %#o)", e.User, e.Dir, e.Mode.Perm())
}

// Reach returns a *ClosedError when u may not enter path or a folder above it, links followed. Only what exists is
// judged, so path itself may be yet to be made. It reads permission bits, not access control lists.
func (u User) Reach(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return fmt.Errorf("reach %s: %w", path, err)
	}
	for ; ; path = filepath.Dir(path) {
		if err := u.enter(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		// The way that a link leads is judged as well as the way to the link.
		if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
			if err := u.Reach(real); err != nil {
				return err
			}
		}
		if path == "/" {
			return nil
		}
	}
}

func (u User) enter(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("reach %s: %w", dir, err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || !info.IsDir() || u.UID == 0 {
		return nil
	}
	bit := fs.FileMode(0o001)
	switch {
	case stat.Uid == u.UID:
		bit = 0o100
	case stat.Gid == u.GID || slices.Contains(u.Groups, stat.Gid):
		bit = 0o010
	}
	if info.Mode()&bit == 0 {
		return &ClosedError{User: u.Name, Dir: dir, Mode: info.Mode()}
	}
	return nil
}
