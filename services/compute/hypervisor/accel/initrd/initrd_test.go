package initrd_test

import (
	"bytes"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"horcrux/services/compute/hypervisor/accel/initrd"
)

// The kernel that runs the tests runs init too: only the power-off is refused it, without the privilege.
func TestInitSaysItsLine(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("init is for x86-64")
	}
	files := unpack(t, initrd.Build(initrd.Options{Line: "here I am", Then: initrd.Idle}))
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, files["init"], 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := elf.NewFile(bytes.NewReader(files["init"])); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Errorf("it does not idle: %v", err)
		}
		_ = cmd.Wait() // it was killed
	}()
	buf := make([]byte, len("\r\nhere I am\r\n"))
	if _, err := out.Read(buf); err != nil || string(buf) != "\r\nhere I am\r\n" {
		t.Errorf("said %q, %v", buf, err)
	}
}

func TestArchive(t *testing.T) {
	files := unpack(t, initrd.Build(initrd.Options{Line: "x", Modules: [][]byte{[]byte("first"), []byte("second!")}}))
	if string(files["0.ko"]) != "first" || string(files["1.ko"]) != "second!" {
		t.Errorf("modules: %q", files)
	}
	if _, ok := files["dev/console"]; !ok || len(files["init"]) == 0 {
		t.Error("console or init is missing")
	}
}

// unpack uses the system's cpio, which knows the format better than we do.
func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	path, err := exec.LookPath("cpio")
	if err != nil {
		t.Skipf("real: kernel: %v", err)
	}
	dir := t.TempDir()
	list := exec.CommandContext(t.Context(), path, "-it", "--quiet")
	list.Stdin = bytes.NewReader(archive)
	names, err := list.Output()
	if err != nil {
		t.Fatalf("cpio: %v", err)
	}
	extract := exec.CommandContext(t.Context(), path, "-id", "--quiet", "init", "*.ko")
	extract.Dir, extract.Stdin = dir, bytes.NewReader(archive)
	if out, err := extract.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v %s", err, out)
	}
	files := map[string][]byte{}
	for _, name := range strings.Fields(string(names)) {
		files[name] = nil
		if content, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			files[name] = content
		}
	}
	return files
}
