package datadir

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"horcrux/pkg/osuser"
)

const childEnv = "DATADIR_TEST_CHILD"

// TestMain makes the test binary hold a data dir until it is killed, when told to.
func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		_, err := Open(dir)
		fmt.Println("opened", err)
		select {}
	}
	os.Exit(m.Run())
}

// sandbox returns an open folder and bases inside it, in which the user called nobody must find its way.
func sandbox(t *testing.T) (string, bases) {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "hx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.Chmod(root, 0o755); err != nil {
		t.Fatal(err)
	}
	return root, bases{state: filepath.Join(root, "state"), run: filepath.Join(root, "run"), users: []string{"nobody"}}
}

func open(t *testing.T, b bases, path string) *Dir {
	t.Helper()
	d, err := b.open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root gives data to other users")
	}
}

// dial checks that a socket bound where the gateway binds it answers at <asked>/api.sock.
func dial(t *testing.T, d *Dir, asked string) {
	t.Helper()
	l, err := net.Listen("unix", d.APISocket())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // the test is over
	t.Chdir(filepath.Dir(asked))
	c, err := net.Dial("unix", filepath.Join(filepath.Base(asked), "api.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

func TestOpenWhereAsked(t *testing.T) {
	root, b := sandbox(t)
	asked := filepath.Join(root, "data")
	d := open(t, b, asked)
	if d.Root != asked || d.Run != asked || d.Notice != "" {
		t.Fatalf("got %+v", d)
	}
	dial(t, d, asked)
}

func TestOpenRelative(t *testing.T) {
	root, b := sandbox(t)
	t.Chdir(root)
	if d := open(t, b, ".horcrux"); d.Root != filepath.Join(root, ".horcrux") {
		t.Fatalf("got %s", d.Root)
	}
}

func TestOpenMovesWhatOthersCannotReach(t *testing.T) {
	needRoot(t)
	root, b := sandbox(t)
	home := filepath.Join(root, "home")
	if err := os.MkdirAll(filepath.Join(home, "checkout"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(home, 0o700); err != nil {
		t.Fatal(err)
	}
	asked := filepath.Join(home, "checkout/.horcrux")
	d := open(t, b, asked)

	t.Run("under the bases, by one name", func(t *testing.T) {
		if filepath.Dir(d.Root) != b.state || filepath.Dir(d.Run) != b.run || filepath.Base(d.Root) != filepath.Base(d.Run) {
			t.Fatalf("got %s and %s", d.Root, d.Run)
		}
	})
	t.Run("where they can", func(t *testing.T) {
		nobody, err := osuser.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{d.Volumes(), d.Images(), d.Libvirt(), d.LibvirtSockets()} {
			if err := nobody.Reach(dir); err != nil {
				t.Error(err)
			}
		}
	})
	t.Run("linked from where it was asked for", func(t *testing.T) {
		if to, err := os.Readlink(asked); err != nil || to != d.Root {
			t.Fatalf("got %q, %v", to, err)
		}
		dial(t, d, asked)
	})
	t.Run("said with the reason", func(t *testing.T) {
		for _, want := range []string{"nobody", home, d.Root, d.Run} {
			if !strings.Contains(d.Notice, want) {
				t.Errorf("%q does not say %s", d.Notice, want)
			}
		}
	})
	t.Run("found again, also after a restart of the machine", func(t *testing.T) {
		if err := os.WriteFile(d.NodeID(), []byte("n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(d.Close(), os.RemoveAll(b.run)); err != nil {
			t.Fatal(err)
		}
		again := open(t, b, asked)
		if again.Root != d.Root || again.Run != d.Run || again.Notice == "" {
			t.Fatalf("got %+v, want %+v", again, d)
		}
		if _, err := os.Stat(again.NodeID()); err != nil {
			t.Fatal(err)
		}
		dial(t, again, asked)
	})
}

func TestOpenMovesLongPaths(t *testing.T) {
	root, b := sandbox(t)
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(root, "run"))
	asked := filepath.Join(root, strings.Repeat("deep/", 20), ".horcrux")
	d := open(t, b, asked)
	if len(filepath.Join(d.Run, longestSocket)) > socketLimit {
		t.Fatalf("sockets lie in %s", d.Run)
	}
	if !strings.Contains(d.Notice, d.Run) || !strings.Contains(d.Notice, "bytes") {
		t.Fatalf("notice is %q", d.Notice)
	}
	dial(t, d, asked)
}

func TestOpenTwoCheckoutsStayApart(t *testing.T) {
	needRoot(t)
	root, b := sandbox(t)
	home := filepath.Join(root, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		t.Fatal(err)
	}
	if a, c := open(t, b, filepath.Join(home, "a")), open(t, b, filepath.Join(home, "c")); a.Root == c.Root {
		t.Fatalf("both lie in %s", a.Root)
	}
}

func TestOpenLeavesOccupiedDataAlone(t *testing.T) {
	needRoot(t)
	root, b := sandbox(t)
	asked := filepath.Join(root, "home/data")
	if err := os.MkdirAll(filepath.Join(asked, "postgres"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(asked), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := b.open(asked)
	if err == nil || !strings.Contains(err.Error(), "move "+asked+" away") {
		t.Fatalf("got %v", err)
	}
}

func TestOpenFollowsALinkOfTheUser(t *testing.T) {
	root, b := sandbox(t)
	asked := filepath.Join(root, "link")
	if err := os.Symlink("elsewhere", asked); err != nil {
		t.Fatal(err)
	}
	if d := open(t, b, asked); d.Root != filepath.Join(root, "elsewhere") {
		t.Fatalf("got %s", d.Root)
	}
}

func TestOpenIsExclusive(t *testing.T) {
	root, b := sandbox(t)
	asked := filepath.Join(root, "data")
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childEnv+"="+asked)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	var word string
	if _, err := fmt.Fscan(out, &word); err != nil {
		t.Fatal(err)
	}

	_, err = b.open(asked)
	var inUse *InUseError
	if !errors.As(err, &inUse) || inUse.Pid != child.Process.Pid {
		t.Fatalf("got %v, want it in use by %d", err, child.Process.Pid)
	}
	if text := err.Error(); !strings.Contains(text, fmt.Sprint(child.Process.Pid)) || strings.Count(text, asked) != 1 || strings.Contains(text, "\n") {
		t.Fatalf("%q is not a sentence that names the holder and, once, the data dir", text)
	}

	if pid, err := Holder(asked); pid != child.Process.Pid || err != nil {
		t.Errorf("the holder is %d, %v, want %d", pid, err, child.Process.Pid)
	}

	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	for _, dir := range []string{asked, filepath.Join(asked, "nothing")} {
		if pid, err := Holder(dir); pid != 0 || err != nil {
			t.Errorf("%s: the holder is %d, %v, want none", dir, pid, err)
		}
	}
	open(t, b, asked) // a killed holder leaves no lock
}

// A command beside the server means the data dir that is there, and makes none.
func TestFind(t *testing.T) {
	t.Chdir(t.TempDir())
	none := func(string) string { return "" }
	home, err := absolute(Resolve(""))
	if err != nil {
		t.Fatal(err)
	}
	local, err := absolute(Local)
	if err != nil {
		t.Fatal(err)
	}
	find := func(asked string, getenv func(string) string, want string) {
		t.Helper()
		if got, err := Find(asked, getenv); got != want || err != nil {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	find("", none, home)
	if err := os.Mkdir(Local, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(Local, apiSocket), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	find("", none, local)
	find("", func(key string) string { return map[string]string{"HORCRUX_DATA_DIR": "/srv/hx"}[key] }, "/srv/hx")
	find("/srv/other", none, "/srv/other")

	nothing := filepath.Join(t.TempDir(), "nothing")
	if _, err := OpenExisting(nothing); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("opened where there is nothing: %v", err)
	}
	if _, err := os.Stat(nothing); err == nil {
		t.Error("it was made")
	}
}
