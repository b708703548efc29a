//go:build !no_qemu

package libvirtd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/google/uuid"
)

func (d *Daemon) pidFile() string   { return filepath.Join(d.opts.Dir, "libvirtd.pid") }
func (d *Daemon) logFile() string   { return filepath.Join(d.opts.Dir, "libvirtd.log") }
func (d *Daemon) confFile() string  { return filepath.Join(d.opts.Dir, "libvirtd.conf") }
func (d *Daemon) stampFile() string { return filepath.Join(d.opts.Dir, "started-as") }

// maxLog is the size, in bytes, at which the log is set aside at the next start.
const maxLog = 8 << 20

// findBinary looks also where a user's PATH often does not.
func findBinary() (string, error) {
	for _, name := range []string{"libvirtd", "/usr/sbin/libvirtd", "/usr/local/sbin/libvirtd"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no libvirtd found: install libvirt's daemon (Debian: libvirt-daemon-system, Gentoo: app-emulation/libvirt)")
}

// configure writes the folder.
func (d *Daemon) configure() error {
	for _, dir := range []string{"etc", "lib", "lib/qemu", "lib/dnsmasq", "cache", "log", "run", "lock", "libvirt"} {
		if err := os.MkdirAll(filepath.Join(d.opts.Dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(d.opts.SocketDir, 0o755); err != nil {
		return err
	}
	if err := d.forgetLastBoot(); err != nil {
		return err
	}
	if info, err := os.Stat(d.logFile()); err == nil && info.Size() > maxLog {
		if err := os.Rename(d.logFile(), d.logFile()+".1"); err != nil {
			return fmt.Errorf("set the log aside: %w", err)
		}
	}
	host, err := d.hostUUID()
	if err != nil {
		return err
	}
	if d.opts.User == "" {
		d.opts.User, d.opts.Group = d.account()
	}
	qemu := filepath.Join(d.opts.Dir, "etc/qemu.conf")
	if d.session {
		qemu = filepath.Join(d.opts.Dir, "libvirt/qemu.conf")
	}
	for path, text := range map[string]string{
		d.confFile():                       d.daemonConf(host),
		qemu:                               d.qemuConf(),
		filepath.Join(d.opts.Dir, "nokvm"): "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	d.argv, d.env = d.command()
	return nil
}

// Mutations is how many calls that change something the daemon works on at once, with workers left for looks.
const Mutations = workers - 8

const workers = 20

func (d *Daemon) daemonConf(host string) string {
	return fmt.Sprintf(`# Written at each start.
host_uuid = "%s"
unix_sock_dir = "%s"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
unix_sock_admin_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
listen_tls = 0
listen_tcp = 0
max_workers = %d
max_client_requests = 32
log_outputs = "3:file:%s"
`, host, d.opts.SocketDir, workers, d.logFile())
}

// qemuConf lets QEMU write its output itself, so that no virtlogd is needed, and leaves /dev as it is in our namespace.
func (d *Daemon) qemuConf() string {
	text := `# Written at each start.
namespaces = []
security_driver = "none"
remember_owner = 0
stdio_handler = "file"
vnc_listen = "127.0.0.1"
`
	if !d.session {
		text += fmt.Sprintf("user = \"%s\"\ngroup = \"%s\"\n", d.opts.User, d.opts.Group)
	}
	return text
}

// account that QEMU runs as: the distribution's, if it can look into our folder, else root.
func (d *Daemon) account() (name, group string) {
	for _, name := range []string{"libvirt-qemu", "qemu"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		g, err := user.LookupGroupId(u.Gid)
		if err != nil {
			continue
		}
		if blind := hiddenFrom(u, d.opts.Dir); blind != "" && !d.session {
			d.log.Warn("QEMU runs as root: its own account cannot look into a folder", "account", name, "folder", blind)
			continue
		}
		return name, g.Name
	}
	return "root", "root"
}

// hiddenFrom returns the first folder on the way to dir, from the bottom, that the account may not enter.
func hiddenFrom(u *user.User, dir string) string {
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid}
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return dir
		}
		mode, stat := info.Mode().Perm(), info.Sys().(*syscall.Stat_t)
		enter := mode&0o001 != 0
		if slices.Contains(groups, strconv.Itoa(int(stat.Gid))) {
			enter = mode&0o010 != 0
		}
		if u.Uid == strconv.Itoa(int(stat.Uid)) {
			enter = mode&0o100 != 0
		}
		if !enter {
			return dir
		}
	}
	return ""
}

// hostUUID names the host to libvirt. Ours is made once: the firmware's may be missing, and the host's own daemon uses it.
func (d *Daemon) hostUUID() (string, error) {
	path := filepath.Join(d.opts.Dir, "host.uuid")
	text, err := os.ReadFile(path)
	if id, bad := uuid.ParseBytes(bytes.TrimSpace(text)); err == nil && bad == nil {
		return id.String(), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := uuid.NewString()
	return id, os.WriteFile(path, []byte(id+"\n"), 0o600)
}

// forgetLastBoot empties what libvirt expects to be empty after a boot: /run.
func (d *Daemon) forgetLastBoot() error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	path, run := filepath.Join(d.opts.Dir, "boot.id"), filepath.Join(d.opts.Dir, "run")
	if last, err := os.ReadFile(path); err == nil && bytes.Equal(last, boot) {
		return nil
	}
	if err := errors.Join(os.RemoveAll(run), os.Mkdir(run, 0o755)); err != nil {
		return err
	}
	return os.WriteFile(path, boot, 0o600)
}

// stamp is all that a running daemon took over from us when it was started.
func (d *Daemon) stamp() []byte {
	return []byte(strings.Join(d.argv, "\n") + "\n" + d.qemuConf() + d.opts.SocketDir + "\n")
}

func (d *Daemon) startedAlike() bool {
	was, err := os.ReadFile(d.stampFile())
	return err == nil && bytes.Equal(was, d.stamp())
}

// tail is the end of a log, for an error.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}
