//go:build !no_qemu

package libvirtd

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"testing"
)

func TestHiddenFrom(t *testing.T) {
	dir := t.TempDir()
	open, shut := filepath.Join(dir, "open"), filepath.Join(dir, "shut")
	inner := filepath.Join(shut, "inner")
	for path, mode := range map[string]os.FileMode{open: 0o755, shut: 0o700} {
		if err := os.MkdirAll(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(inner, 0o755); err != nil {
		t.Fatal(err)
	}
	me := &user.User{Uid: fmt.Sprint(os.Geteuid()), Gid: fmt.Sprint(os.Getegid()), Username: "me"}
	if got := hiddenFrom(me, inner); got != "" {
		t.Errorf("hidden from its owner: %s", got)
	}
	stranger := &user.User{Uid: "54321", Gid: "54321", Username: "stranger"}
	if got := hiddenFrom(stranger, inner); got != shut {
		t.Errorf("a stranger is stopped by %q", got)
	}
}
