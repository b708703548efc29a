package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// program is something that is run by us or by libvirt.
type program struct {
	name    string
	purpose string
	service string
	use     string
	ask     string         // the argument that makes it tell its version
	version *regexp.Regexp // whose first group is the version in what it answers
	least   string         // the oldest version that will do; "" for any
	missing Status         // what it means when there is none
	source  source
	instead string // a program that does as well, "" for none
}

func (p program) check() check {
	return check{name: p.name, purpose: p.purpose, service: p.service, use: p.use, look: p.look}
}

// qemuImg is needed for volumes, whatever uses them.
var qemuImg = program{
	name: "qemu-img", purpose: "volumes of the format qcow2 and images", service: "storage", ask: "--version",
	version: regexp.MustCompile(`^qemu-img version (\d[\d.]*)`), least: "6.0", missing: Fail,
	source: source{"qemu-utils", "app-emulation/qemu"},
}

// sbin are where programs of root are that a user's PATH often lacks.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// find returns the path of a program, as those who run it find it.
func (h *host) find(name string) (string, bool) {
	if path, err := exec.LookPath(name); err == nil {
		return path, true
	}
	for _, dir := range sbin {
		if path, err := exec.LookPath(filepath.Join("/", h.Root, dir, name)); err == nil {
			return path, true
		}
	}
	return "", false
}

func (p program) look(ctx context.Context, h *host) Finding {
	path, there := h.find(p.name)
	if !there && p.instead != "" {
		if other, there := h.find(p.instead); there {
			return ok("", other+" in its place")
		}
	}
	if !there {
		return Finding{Status: p.missing, What: "not installed", Mend: h.install(p.source)}
	}
	answer, err := ask(ctx, path, p.ask)
	broken := func(format string, args ...any) Finding {
		return Finding{Status: p.missing, What: path + " " + fmt.Sprintf(format, args...), Mend: h.reinstall(p.source)}
	}
	if err != nil {
		return broken("%s: %s", p.ask, why(ctx, err))
	}
	found := p.version.FindStringSubmatch(answer)
	if found == nil {
		return broken("%s tells no version but %q", p.ask, line(answer))
	}
	if older(found[1], p.least) {
		return Finding{Status: p.missing, Version: found[1], What: path + " is older than " + p.least, Mend: h.install(p.source)}
	}
	return ok(found[1], path)
}

const (
	// answerKept is how many bytes of an answer are read; a version is at its beginning.
	answerKept = 4 << 10
	// killTime is how long what a killed program has started may keep its output open.
	killTime = time.Second
)

// ask runs a program with one argument and returns the beginning of what it prints. What goes on printing is ended.
func ask(ctx context.Context, path, argument string) (string, error) {
	running, stop := context.WithCancel(ctx)
	defer stop()
	kept := &beginning{full: stop}
	cmd := exec.CommandContext(running, path, argument)
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Stdout, cmd.Stderr = kept, kept
	cmd.WaitDelay = killTime
	err := cmd.Run()
	if err != nil && !errors.Is(running.Err(), context.Canceled) {
		return "", errors.Join(err, errorOf(kept.String()))
	}
	return kept.String(), ctx.Err()
}

// errorOf is what a program that failed had to say, nil if nothing.
func errorOf(text string) error {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	return errors.New(line(text))
}

// beginning keeps the first bytes that are written to it, and calls full for the others.
type beginning struct {
	strings.Builder
	full func()
}

func (b *beginning) Write(p []byte) (int, error) {
	room := answerKept - b.Len()
	if len(p) <= room {
		return b.Builder.Write(p)
	}
	b.Builder.Write(p[:room])
	b.full()
	return room, io.ErrShortWrite
}

// longestLine is how many bytes of foreign text are shown.
const longestLine = 160

// line puts a text on one line, without what it says again, and cut where it is long.
func line(text string) string {
	var said []string
	for l := range strings.Lines(text) {
		if l = strings.Join(strings.Fields(l), " "); l != "" && !slices.Contains(said, l) {
			said = append(said, l)
		}
	}
	text = strings.ReplaceAll(strings.Join(said, "; "), ":; ", ": ")
	if len(text) > longestLine {
		text = strings.ToValidUTF8(text[:longestLine], "") + "…"
	}
	return text
}

// older compares versions of numbers with dots between them; "" is older than nothing.
func older(version, least string) bool {
	v, l := strings.Split(version, "."), strings.Split(least, ".")
	for i := range l {
		if i >= len(v) {
			return strings.Trim(strings.Join(l[i:], ""), "0") != ""
		}
		if a, b := number(v[i]), number(l[i]); a != b {
			return a < b
		}
	}
	return false
}

func number(digits string) int {
	var n int
	_, _ = fmt.Sscan(digits, &n) // 0 for what is no number
	return n
}
