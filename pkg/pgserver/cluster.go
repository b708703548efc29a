package pgserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"horcrux/pkg/osuser"
)

// port names the socket; no TCP port is opened.
const port = "5432"

// socketLimit is the longest path that the address of a Unix socket holds (sockaddr_un, less its final NUL).
const socketLimit = 107

// cluster is a data directory with what it takes to run it.
type cluster struct {
	Options
	dir       string
	socketDir string
	user      osuser.User // runs the server
	me        osuser.User // runs this process
	bin       binaries
}

func (c *cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c *cluster) pidFile() string { return filepath.Join(c.data(), "postmaster.pid") }
func (c *cluster) socket() string  { return filepath.Join(c.socketDir, ".s.PGSQL."+port) }

// open prepares everything up to a server that could be started.
func open(ctx context.Context, o Options) (*cluster, error) {
	c := &cluster{Options: o}
	var err error
	if c.dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if c.socketDir, err = filepath.Abs(o.SocketDir); err != nil {
		return nil, err
	}
	if n := len(c.socket()); n > socketLimit {
		return nil, fmt.Errorf("the socket's path %s has %d bytes, %d too many: choose a shorter folder for sockets",
			c.socket(), n, n-socketLimit)
	}
	if err := c.chooseUser(); err != nil {
		return nil, err
	}
	if err := c.makeDirs(); err != nil {
		return nil, err
	}
	major, err := c.version()
	if err != nil {
		return nil, err
	}
	if c.bin, err = findBinaries(ctx, major); err != nil {
		return nil, err
	}
	if major == 0 {
		if err := c.initialise(ctx); err != nil {
			return nil, err
		}
	}
	return c, c.configure()
}

// chooseUser settles who runs the server: the owner of the data, for Postgres runs as nobody else; without data
// whoever Options name when this process is root, and this process's own user otherwise.
func (c *cluster) chooseUser() (err error) {
	if c.me, err = osuser.Current(); err != nil {
		return err
	}
	name := c.User
	if name == "" {
		name = defaultUser
	}
	info, err := os.Stat(c.data())
	switch {
	case err == nil:
		owner := info.Sys().(*syscall.Stat_t).Uid
		if c.me.UID != 0 && owner != c.me.UID {
			return fmt.Errorf("%s belongs to uid %d: start as that user or as root", c.data(), owner)
		}
		c.user, err = osuser.ByUID(owner)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	case c.me.UID != 0:
		c.user = c.me
		return nil
	default:
		c.user, err = osuser.Lookup(name)
	}
	if err != nil {
		return err
	}
	if c.user.UID == 0 {
		return errors.New("postgres does not run as root: give its data and its user to another OS user")
	}
	return nil
}

// makeDirs makes the folders and checks that the server's user can get to them.
func (c *cluster) makeDirs() error {
	mode := fs.FileMode(0o700)
	if c.user.UID != c.me.UID {
		mode = 0o711 // the server's user passes through to data/
	}
	if err := mkdir(c.dir, mode); err != nil {
		return err
	}
	if err := mkdir(c.socketDir, 0o700); err != nil {
		return err
	}
	if c.user.UID != c.me.UID {
		if err := os.Chown(c.socketDir, int(c.user.UID), int(c.user.GID)); err != nil {
			return err
		}
	}
	for _, dir := range []string{c.dir, c.socketDir} {
		if err := c.user.Reach(dir); err != nil {
			return fmt.Errorf("postgres could not use %s: %w", dir, err)
		}
	}
	return nil
}

// mkdir makes one folder with exactly a mode, and leaves the mode of one that exists as it is.
func mkdir(dir string, mode fs.FileMode) error {
	err := os.Mkdir(dir, mode)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Chmod(dir, mode) // past the umask
}

// version returns the major version that made the data, 0 when there is none yet.
func (c *cluster) version() (int, error) {
	raw, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(c.data()); err == nil {
			return 0, fmt.Errorf("%s holds no Postgres data: move it away", c.data())
		}
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	major, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		return 0, fmt.Errorf("version of %s: %w", c.data(), err)
	}
	return major, nil
}

// initialise makes the data directory. It comes into being by a rename, so that a crash in the middle leaves only a
// temporary folder, which the next start removes; each has its own, since an initdb that we lost may be at work still.
func (c *cluster) initialise(ctx context.Context) error {
	const unfinished = "initdb-"
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), unfinished) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(c.dir, e.Name())); err != nil {
			c.Logger.Warn("an unfinished initdb could not be removed", "error", err)
		}
	}
	tmp, err := os.MkdirTemp(c.dir, unfinished)
	if err != nil {
		return err
	}
	if c.user.UID != c.me.UID {
		if err := os.Chown(tmp, int(c.user.UID), int(c.user.GID)); err != nil {
			return err
		}
	}
	args := []string{
		"--pgdata=" + tmp, "--username=" + role, "--encoding=UTF8", "--locale=C", "--auth=peer",
		"--data-checksums", "--no-instructions",
	}
	if c.Volatile {
		args = append(args, "--no-sync")
	}
	c.Logger.Info("making the private postgres", "dir", c.dir, "version", c.bin.major, "user", c.user.Name)
	cmd := exec.CommandContext(ctx, c.bin.path("initdb"), args...)
	c.dress(cmd)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("initdb in %s: %w: %s", tmp, err, lastLine(output.Bytes()))
	}
	if err := os.Rename(tmp, c.data()); err != nil {
		return err
	}
	return syncDir(c.dir)
}

// dress gives a program of Postgres its user, a neutral environment and a folder that it can enter.
func (c *cluster) dress(cmd *exec.Cmd) {
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC"}
	// A session of its own keeps the terminal's interrupt from it: it is stopped by us, in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.user.Credential()}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func lastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	return string(text[bytes.LastIndexByte(text, '\n')+1:])
}
