// Package tools holds no code of its own, only the programs below it and the tests of the scripts in build/.
package tools

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestTags(t *testing.T) {
	const none = "no_qemu,no_lxd,no_incus,no_docker,no_podman,no_zfs,no_lvm,no_cluster,no_webui,no_backup,no_ldap,no_ssl,no_ipv6"
	for _, c := range []struct{ use, want string }{
		{"-lxc", ""},
		{"-lxc qemu ssl", ""},
		{"-lxc -docker", "no_docker"},
		{"-docker lxc", "no_docker,with_lxc"},
		{"-lxc ceph", "with_ceph"},
		{"-lxc -qemu qemu", ""},
		{"-*", none},
		{"-* qemu", strings.TrimPrefix(none, "no_qemu,")},
		{"-* ceph", none + ",with_ceph"},
	} {
		t.Run(c.use, func(t *testing.T) {
			out, err := exec.Command("../build/tags", c.use).CombinedOutput()
			if got := strings.TrimSpace(string(out)); err != nil || got != c.want {
				t.Fatalf("got %q, %v, want %q", got, err, c.want)
			}
		})
	}
	t.Run("unknown", func(t *testing.T) {
		out, err := exec.Command("../build/tags", "qemu -xen").CombinedOutput()
		if err == nil || !strings.Contains(string(out), `"-xen"`) || !strings.Contains(string(out), "podman") {
			t.Fatalf("got %q, %v; want an error that lists the flags", out, err)
		}
	})
}

// setup is a copy of build/ with a table of packages of its own, in which apt-get is a fake that notes how it was
// called and makes the file that it is told to.
func setup(t *testing.T, table, installs string) (run func(args ...string) (string, error), calls func() string) {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{
		"build/packages": table,
		"go.work":        "go 1.26.0\n",
		"bin/apt-get":    "#!/bin/bash\necho \"$*\" >>" + dir + "/calls\n[[ \"$*\" != *install* || -z '" + installs + "' ]] || touch '" + installs + "'\n",
		"bin/sudo":       "#!/bin/bash\n[[ $1 == -n ]] && shift\nexec \"$@\"\n",
	}
	for _, script := range []string{"build/setup", "build/guest-kernel"} {
		text, err := os.ReadFile(filepath.Join("..", script))
		if err != nil {
			t.Fatal(err)
		}
		files[script] = string(text)
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run = func(args ...string) (string, error) {
		cmd := exec.Command(filepath.Join(dir, "build/setup"), args...)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	calls = func() string {
		text, err := os.ReadFile(filepath.Join(dir, "calls"))
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(text)
	}
	return run, calls
}

func TestSetup(t *testing.T) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !strings.Contains(string(release), "debian") {
		t.Skip("real: debian: this is another distribution")
	}
	file := func(t *testing.T) string { return filepath.Join(t.TempDir(), "there") }

	t.Run("installs what is missing, once and aloud", func(t *testing.T) {
		there := file(t)
		run, calls := setup(t, "run | x | any | "+there+" | pkg-b pkg-a | cat/b | good reasons\n"+
			"run | x | any | sh | pkg-c | cat/c | it is there\ntest | x | any | /none | pkg-d | cat/d | another goal\n", there)
		out, err := run("run")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !strings.Contains(out, "installing pkg-a pkg-b\n") || !strings.Contains(out, "for good reasons") {
			t.Errorf("it says %q", out)
		}
		if got := calls(); !strings.Contains(got, "--no-install-recommends pkg-a pkg-b\n") || strings.Count(got, "install -y") != 1 {
			t.Errorf("apt-get was called as %q", got)
		}
		before := calls()
		if out, err := run("run"); err != nil || out != "" || calls() != before {
			t.Errorf("again: %v, %q, %q", err, out, calls())
		}
	})
	t.Run("says what an installation did not bring", func(t *testing.T) {
		run, _ := setup(t, "run | x | any | "+file(t)+" | pkg-a | cat/a | x\n", "")
		if out, err := run("run"); err == nil || !strings.Contains(out, "still missing") {
			t.Fatalf("%v: %s", err, out)
		}
	})
	t.Run("lists the parts that are there whole", func(t *testing.T) {
		run, _ := setup(t, "test | whole | any | sh | p | c | x\ntest | whole | any | cat | p | c | x\n"+
			"test | half | any | sh | p | c | x\ntest | half | any | /none | p | c | x\n"+
			"test | either | any | /none sh | p | c | x\nrun | other | any | sh | p | c | x\ntest | - | any | sh | p | c | x\n", "")
		if out, err := run("--parts"); err != nil || out != "either,whole\n" {
			t.Fatalf("%v: %q", err, out)
		}
	})
}

// TestPackagesAreWhole keeps every line of the table readable by build/setup.
func TestPackagesAreWhole(t *testing.T) {
	text, err := os.ReadFile("../build/packages")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		columns := strings.Split(line, "|")
		if len(columns) != 7 {
			t.Errorf("%d columns: %s", len(columns), line)
			continue
		}
		for _, c := range columns {
			if strings.TrimSpace(c) == "" {
				t.Errorf("an empty column: %s", line)
			}
		}
		if as := strings.TrimSpace(columns[2]); as != "root" && as != "any" {
			t.Errorf("as %q: %s", as, line)
		}
	}
}
