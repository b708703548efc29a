package doctor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// distro is the kind of system that commands are given for.
type distro string

const (
	debian distro = "debian"
	gentoo distro = "gentoo"
	other  distro = ""
)

// readDistro goes by /etc/os-release, of which derivatives name their parents.
func readDistro(root string) distro {
	text, err := os.ReadFile(filepath.Join("/", root, "etc/os-release"))
	if err != nil {
		return other
	}
	var names []string
	for l := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok && (key == "ID" || key == "ID_LIKE") {
			names = append(names, strings.Fields(strings.Trim(value, `"'`))...)
		}
	}
	for _, d := range []distro{debian, gentoo} {
		if slices.Contains(names, string(d)) {
			return d
		}
	}
	return other
}

// source is a package: Debian's names for it, and Gentoo's atom.
type source struct{ debian, gentoo string }

// install is the command that installs a package, or brings it up to date.
func (h *host) install(p source) string {
	switch h.distro {
	case debian:
		return asRoot("apt-get install --no-install-recommends " + p.debian)
	case gentoo:
		return asRoot("emerge --ask '" + p.gentoo + "'")
	}
	return "install what Debian calls " + p.debian
}

// reinstall is the command that puts a broken package right.
func (h *host) reinstall(p source) string {
	switch h.distro {
	case debian:
		return asRoot("apt-get install --reinstall " + p.debian)
	case gentoo:
		return asRoot("emerge --ask --oneshot '" + p.gentoo + "'")
	}
	return "install again what Debian calls " + p.debian
}

// start is the command that starts a daemon of the system.
func (h *host) start(daemon string) string {
	if h.distro == gentoo {
		return asRoot("rc-service " + daemon + " start")
	}
	return asRoot("systemctl start " + daemon)
}

// asRoot is a command as this user has to give it.
func asRoot(command string) string {
	if os.Geteuid() == 0 {
		return command
	}
	return "sudo " + command
}
