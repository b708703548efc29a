package osuser_test

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"testing"

	"horcrux/pkg/osuser"
)

// tree makes root/open/closed/inner with modes 0755, 0700, 0755 and root/link → closed, and returns its root. It lies
// outside t.TempDir, whose parents may themselves be closed to others.
func tree(t *testing.T) string {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "osuser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	if err := os.MkdirAll(filepath.Join(root, "open/closed/inner"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, mode := range map[string]os.FileMode{"": 0o755, "open": 0o755, "open/closed": 0o700} {
		if err := os.Chmod(filepath.Join(root, dir), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(root, "open/closed"), filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	return root
}

func TestReach(t *testing.T) {
	root := tree(t)
	me, err := osuser.Current()
	if err != nil {
		t.Fatal(err)
	}
	stranger := osuser.User{Name: "stranger", UID: 4_000_000, GID: 4_000_000}
	groupmate := osuser.User{Name: "groupmate", UID: 4_000_000, Groups: []uint32{me.GID}}
	if err := os.Chmod(filepath.Join(root, "open"), 0o701); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		user   osuser.User
		path   string
		closed string // the folder named, "" for none
	}{
		{"owner", me, "open/closed/inner", ""},
		{"root", osuser.User{Name: "root"}, "open/closed/inner", ""},
		{"stranger, open way", stranger, "open", ""},
		{"stranger, not made yet", stranger, "open/new/er", ""},
		{"stranger, closed folder", stranger, "open/closed", "open/closed"},
		{"stranger, below a closed folder", stranger, "open/closed/inner", "open/closed"},
		{"stranger, not made yet below a closed folder", stranger, "open/closed/new", "open/closed"},
		{"stranger, through a link", stranger, "link/inner", "open/closed"},
		{"group bits count for a member", groupmate, "open", "open"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.user.Reach(filepath.Join(root, c.path))
			var closed *osuser.ClosedError
			switch {
			case c.closed == "" && err != nil:
				t.Fatalf("got %v, want it to be open", err)
			case c.closed != "" && !errors.As(err, &closed):
				t.Fatalf("got %v, want a ClosedError", err)
			case c.closed != "":
				want, statErr := os.Stat(filepath.Join(root, c.closed))
				got, gotErr := os.Stat(closed.Dir)
				if statErr != nil || gotErr != nil || !os.SameFile(want, got) {
					t.Fatalf("named %s, want %s", closed.Dir, c.closed)
				}
			}
		})
	}
}

func TestLookup(t *testing.T) {
	root, err := osuser.Lookup("root")
	if err != nil {
		t.Fatal(err)
	}
	if root.UID != 0 || root.Credential() != nil {
		t.Fatalf("got %+v with credential %v", root, root.Credential())
	}
	byID, err := osuser.ByUID(0)
	if err != nil || byID.Name != "root" {
		t.Fatalf("got %+v, %v", byID, err)
	}
	var unknown user.UnknownUserError
	if _, err := osuser.Lookup("no-such-user-here"); !errors.As(err, &unknown) {
		t.Fatalf("got %v, want UnknownUserError", err)
	}
}
