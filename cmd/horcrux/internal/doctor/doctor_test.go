package doctor

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/goleak"

	"horcrux/cmd/horcrux/internal/config"
	"horcrux/pkg/pgserver/pgtest"
)

var update = flag.Bool("update", false, "write testdata anew")

type tests struct{ *testing.M }

func (t tests) Run() int { return pgtest.Run(t.M) }

func TestMain(m *testing.M) { goleak.VerifyTestMain(tests{m}) }

// patience is for a busy machine.
const patience = time.Minute

// bench is a host of a test: PATH and the files of the system are the test's.
func bench(t *testing.T, flags ...string) *host {
	t.Helper()
	root := t.TempDir()
	bin := filepath.Join(root, "bin")
	for _, dir := range []string{bin, filepath.Join(root, "etc")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin)
	put(t, filepath.Join(root, "etc/os-release"), "NAME=\"Some Debian\"\nID=some\nID_LIKE=\"debian\"\n", 0o644)
	cmd := &cobra.Command{Use: "doctor"}
	config.Register(cmd)
	if err := cmd.ParseFlags(flags); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(cmd.Flags(), func(string) (string, bool) { return "", false })
	if err != nil {
		t.Fatal(err)
	}
	return &host{Options: Options{
		Config: c, DataDir: filepath.Join(root, "data"), Version: "1.2.3", Built: func(string) bool { return true }, Root: root, Timeout: patience,
	}, distro: readDistro(root)}
}

func put(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // past the umask
		t.Fatal(err)
	}
}

// program puts a program into PATH that prints what a shell command prints.
func (h *host) program(t *testing.T, name, command string) {
	t.Helper()
	put(t, filepath.Join(h.Root, "bin", name), "#!/bin/sh\n"+command+"\n", 0o755)
}

// wants holds a finding against its status and words of what it says.
func wants(t *testing.T, f Finding, status Status, words ...string) {
	t.Helper()
	text := strings.Join([]string{f.Version, f.What, f.Mend}, " | ")
	if f.Status != status || (f.Status == OK) != (f.Mend == "") {
		t.Errorf("%s %s, want %s", f.Status, text, status)
	}
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%q does not say %q", text, w)
		}
	}
}

// What a machine is told on which some things are and others are not.
func TestGolden(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	h := bench(t, "--listen", busy.Addr().String(), "--database", "postgres://u:verysecret@127.0.0.1:1/x", "--nats", "nats://u:verysecret@127.0.0.1:1",
		"--libvirt-uri", "qemu+unix:///system?socket=/nonexistent/socket", "--image-dirs", "/nonexistent")
	h.program(t, "qemu-img", "echo 'qemu-img version 7.2.22 (Debian 1:7.2)'")
	h.program(t, "qemu-system-x86_64", "echo 'QEMU emulator version 2.5.0'")
	h.program(t, "dnsmasq", "echo 'what?'")
	h.program(t, "virtlogd", "echo 'virtlogd (libvirt) 9.0.0'")
	h.program(t, "nft", "")
	var found []Finding
	for _, f := range Run(t.Context(), h.Options) {
		switch f.Name { // what they say is this machine's
		case "clock", "open-files", "disk-space":
		default:
			found = append(found, f)
		}
	}
	text, err := json.MarshalIndent(found, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got := string(text) + "\n"
	if strings.Contains(got, "verysecret") {
		t.Errorf("a password is shown:\n%s", got)
	}
	got = strings.NewReplacer(h.Root, "ROOT", "sudo ", "").Replace(got)
	got = regexp.MustCompile(`127\.0\.0\.1:\d\d+|port \d+|:\d{3,}`).ReplaceAllString(got, "PORT")
	const file = "testdata/report.golden"
	if *update {
		put(t, file, got, 0o644)
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestPrograms(t *testing.T) {
	for name, tc := range map[string]struct {
		command string // "" for no program
		status  Status
		words   []string
	}{
		"good":             {"echo 'qemu-img version 7.2.22 (Debian)'", OK, []string{"7.2.22", "bin/qemu-img"}},
		"missing":          {"", Fail, []string{"not installed", "apt-get install", "qemu-utils"}},
		"too old":          {"echo 'qemu-img version 2.11.1'", Fail, []string{"2.11.1", "older than 6.0", "apt-get install"}},
		"rubbish":          {"echo 'hello\nworld'", Fail, []string{"no version", "hello; world", "--reinstall"}},
		"rubbish for ever": {"while :; do echo rubbish rubbish rubbish; done", Fail, []string{"no version", "rubbish"}},
		"silent":           {":", Fail, []string{"no version"}},
		"failing":          {"echo 'error while loading shared libraries' >&2; exit 127", Fail, []string{"shared libraries", "127", "--reinstall"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := bench(t)
			if tc.command != "" {
				h.program(t, "qemu-img", tc.command)
			}
			wants(t, h.look(t.Context(), qemuImg.check()), tc.status, tc.words...)
		})
	}
	t.Run("hanging", func(t *testing.T) {
		h := bench(t)
		h.program(t, "qemu-img", "exec /bin/sleep 1000")
		h.Timeout = 200 * time.Millisecond
		wants(t, h.look(t.Context(), qemuImg.check()), Fail, "no answer in time", "--reinstall")
	})
	t.Run("not executable", func(t *testing.T) {
		h := bench(t)
		put(t, filepath.Join(h.Root, "bin/qemu-img"), "", 0o644)
		wants(t, h.look(t.Context(), qemuImg.check()), Fail, "not installed")
	})
	t.Run("in a folder of root", func(t *testing.T) {
		h := bench(t)
		if err := os.MkdirAll(filepath.Join(h.Root, "usr/sbin"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(h.Root, "usr/sbin/qemu-img"), "#!/bin/sh\necho qemu-img version 8.0\n", 0o755)
		wants(t, h.look(t.Context(), qemuImg.check()), OK, "8.0", "usr/sbin")
	})
}

func TestDistributions(t *testing.T) {
	for release, want := range map[string]string{
		"ID=debian":                        "apt-get install --no-install-recommends qemu-utils",
		"ID=mint\nID_LIKE='ubuntu debian'": "apt-get install --no-install-recommends qemu-utils",
		"ID=gentoo":                        "emerge --ask 'app-emulation/qemu'",
		"ID=arch":                          "install what Debian calls qemu-utils",
	} {
		h := bench(t)
		put(t, filepath.Join(h.Root, "etc/os-release"), release+"\n", 0o644)
		h.distro = readDistro(h.Root)
		if got := strings.TrimPrefix(h.install(qemuImg.source), "sudo "); got != want {
			t.Errorf("%s: %q, want %q", release, got, want)
		}
	}
}

func TestOlder(t *testing.T) {
	for _, tc := range []struct {
		version, least string
		want           bool
	}{
		{"7.2.22", "6.0", false},
		{"6", "6.0", false},
		{"6.0", "6", false},
		{"6", "6.1", true},
		{"10.0", "9.5", false},
		{"9.4.9", "9.5", true},
		{"15.8", "14", false},
		{"1", "", false},
	} {
		if got := older(tc.version, tc.least); got != tc.want {
			t.Errorf("%s older than %s: %t", tc.version, tc.least, got)
		}
	}
}

// What a service or a flag that is not there would need is not looked at.
func TestOnlyWhatIsAskedFor(t *testing.T) {
	names := func(h *host) string {
		var all []string
		for _, f := range Run(t.Context(), h.Options) {
			all = append(all, f.Name)
		}
		return strings.Join(all, " ")
	}
	h := bench(t, "--services", "storage", "--nats", "nats://127.0.0.1:1", "--database", "postgres://127.0.0.1:1/x")
	if got := names(h); got != "configuration clock open-files data-dir disk-space image-dirs database nats qemu-img server" {
		t.Errorf("storage alone: %s", got)
	}
	h = bench(t)
	h.Built = func(flag string) bool { return flag != "qemu" && flag != "ssl" }
	if got := names(h); got != "configuration clock open-files data-dir disk-space image-dirs postgres qemu-img server" {
		t.Errorf("without qemu and ssl: %s", got)
	}
}
