// Package datadir is the folder that one installation of Horcrux lives in: where it lies, who may use it, and the names
// of what is in it.
package datadir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Default is the data dir of a system-wide installation.
const Default = "/var/lib/horcrux"

// Local is the data dir of a checkout, or of a user without rights on the system.
const Local = ".horcrux"

// Dir is an open data dir, held by this process alone until Close.
type Dir struct {
	// Root holds the data. It is absolute and free of links.
	Root string
	// Run holds the sockets: Root itself, or a folder with a shorter or more open path.
	Run string
	// Notice says that the data or the sockets lie elsewhere than asked, and why; "" when they do not.
	Notice string

	lock *os.File
}

// Resolve returns the data dir to open: the one asked for, else what a daemon of this user takes: Default as root,
// Local otherwise.
func Resolve(asked string) string {
	switch {
	case asked != "":
		return asked
	case os.Geteuid() == 0:
		return Default
	default:
		return Local
	}
}

// Open makes the data dir at path where it is missing, and takes it for this process. The error is an *InUseError when
// another process has it. As root, data that the OS users of Postgres and QEMU could not get to, or whose sockets'
// paths would be too long, lies under /var/lib and its sockets under /run, path is a link to it, and Notice says so.
func Open(path string) (*Dir, error) { return system.open(path) }

func (b bases) open(path string) (*Dir, error) {
	d, err := b.place(path)
	if err != nil {
		return nil, fmt.Errorf("data dir %s: %w", path, err)
	}
	if err := d.take(); err != nil {
		return nil, fmt.Errorf("data dir %s: %w", path, err)
	}
	if err := d.furnish(); err != nil {
		return nil, errors.Join(fmt.Errorf("data dir %s: %w", path, err), d.Close())
	}
	return d, nil
}

// Close gives the data dir up. What is in it stays.
func (d *Dir) Close() error { return d.lock.Close() }

const (
	apiSocket     = "api.sock"
	libvirtSocket = "libvirt/libvirt-sock"
	// longestSocket is the name that decides whether Root is short enough to hold the sockets.
	longestSocket = "libvirt/libvirt-admin-sock"
)

// APISocket is where the gateway listens. <root>/api.sock leads there too.
func (d *Dir) APISocket() string { return filepath.Join(d.Run, apiSocket) }

// NodeID is the file of the node's identity.
func (d *Dir) NodeID() string { return filepath.Join(d.Root, "node.id") }

// MasterKey holds the key of the vault.
func (d *Dir) MasterKey() string { return filepath.Join(d.Root, "master.key") }

// Postgres holds the private Postgres, PostgresSockets its socket.
func (d *Dir) Postgres() string { return filepath.Join(d.Root, "postgres") }

// PostgresSockets is a folder of its own, closed to all but Postgres's user.
func (d *Dir) PostgresSockets() string { return filepath.Join(d.Run, "pg") }

// NATS holds JetStream's files.
func (d *Dir) NATS() string { return filepath.Join(d.Root, "nats") }

// Libvirt holds the configuration and state of a private libvirtd.
func (d *Dir) Libvirt() string { return filepath.Join(d.Root, "libvirt") }

// LibvirtSockets is the folder of a private libvirtd's sockets.
func (d *Dir) LibvirtSockets() string { return filepath.Dir(d.LibvirtSocket()) }

// LibvirtSocket is where a private libvirtd listens. <root>/libvirt/libvirt-sock leads there too.
func (d *Dir) LibvirtSocket() string { return filepath.Join(d.Run, libvirtSocket) }

// Consoles holds what the serial consoles of virtual machines said.
func (d *Dir) Consoles() string { return filepath.Join(d.Root, "consoles") }

// Images holds the kernels, ISOs and disk images that a request may name.
func (d *Dir) Images() string { return filepath.Join(d.Root, "images") }

// Volumes holds the volumes of the pool called local.
func (d *Dir) Volumes() string { return filepath.Join(d.Root, "volumes") }

// furnish makes the folders that nobody else makes, and the links from Root to sockets that lie elsewhere.
func (d *Dir) furnish() error {
	for _, folder := range []struct {
		path string
		mode fs.FileMode
	}{
		{d.Images(), passable()},
		{d.Volumes(), passable()},
		{d.Consoles(), passable()},
		{d.Libvirt(), passable()},
		{d.LibvirtSockets(), passable()},
		{d.NATS(), 0o700},
	} {
		if err := mkdir(folder.path, folder.mode); err != nil {
			return err
		}
	}
	if d.Run == d.Root {
		return nil
	}
	for _, socket := range []string{apiSocket, libvirtSocket} {
		if err := link(filepath.Join(d.Run, socket), filepath.Join(d.Root, socket)); err != nil {
			return err
		}
	}
	return nil
}

// passable is the mode of a folder that other users must pass through: those that root's daemons run as. Without root
// there are none.
func passable() fs.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// mkdir makes one folder with exactly a mode, and leaves one that exists as it is.
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

// link makes name a symbolic link to target, in place of whatever link or stale socket is there.
func link(target, name string) error {
	if at, err := os.Readlink(name); err == nil && at == target {
		return nil
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(target, name)
}
