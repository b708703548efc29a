package instance

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// cliTime bounds one run of the binary as a command line.
const cliTime = 2 * time.Minute

// Result is how a command line ended.
type Result struct {
	Out, Err string
	Code     int
}

// CLI runs the binary as a command line that finds the instance, to its end.
func (i *Instance) CLI(args ...string) Result {
	i.T.Helper()
	return i.finish(nil, args)
}

// CLIAs is CLI run by another user, for which the test needs to be root.
func (i *Instance) CLIAs(uid uint32, args ...string) Result {
	i.T.Helper()
	return i.finish(&syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}, args)
}

// Command is a command line that finds the instance and is not started. It ends with ctx.
func (i *Instance) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, i.Bin, args...)
	cmd.Env = append(append(os.Environ(), i.Env...), "HORCRUX_DATA_DIR="+i.Dir, "HORCRUX_URL=")
	cmd.Dir = "/"
	return cmd
}

func (i *Instance) finish(attr *syscall.SysProcAttr, args []string) Result {
	i.T.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), cliTime)
	defer cancel()
	cmd := i.Command(ctx, args...)
	cmd.SysProcAttr = attr
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		i.T.Fatalf("horcrux %q: %v\n%s", args, err, stderr.String())
	}
	return Result{Out: out.String(), Err: stderr.String(), Code: cmd.ProcessState.ExitCode()}
}
