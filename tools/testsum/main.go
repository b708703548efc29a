// Command testsum runs "go test -json" with the arguments given and says what came of it: a line for each package, the
// output of what failed, every skip by its reason, and a count of all three.
//
//	testsum [-require part,part] -- [go test's arguments]
//
// A test that cannot run for want of something real skips with "real: <part>: <reason>". When a part that -require
// names was skipped, the run has failed: on this machine it should have been tested.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	require := flag.String("require", "", "comma-separated `parts` that must not be skipped")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ok, err := run(ctx, strings.Split(*require, ","), flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsum:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// run runs the tests and reports whether all that had to pass did.
func run(ctx context.Context, require, args []string) (bool, error) {
	start := time.Now()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json"}, args...)...)
	// Interrupted, go test passes the interrupt on, and waits for the tests to clean up after themselves.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	report := newReport(os.Stdout)
	readErr := report.read(out)
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return false, err
	}
	if readErr != nil {
		return false, readErr
	}
	ok := report.summarise(require, time.Since(start))
	return ok && exit == nil, nil
}
