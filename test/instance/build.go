// Package instance builds and runs horcrux as a process of its own, for tests of the whole system: it is started,
// asked, killed and started again as a user would.
package instance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// buildTime bounds a build with cold caches on two cores.
const buildTime = 10 * time.Minute

// Root is the top of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Build builds the program with the crash points, and more tags, into dir and returns its path.
func Build(dir string, tags string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), buildTime)
	defer cancel()
	bin := filepath.Join(dir, "horcrux")
	cmd := exec.CommandContext(ctx, "go", "build", "-tags", "crashpoints "+tags, "-o", bin, "./cmd/horcrux")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build horcrux: %w\n%s", err, out)
	}
	return bin, os.Chmod(bin, 0o755)
}
