package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"horcrux/pkg/osuser"
	"horcrux/pkg/pgserver"
)

// The guard is told its folder and mode in this variable, as "mode:folder".
const guardEnv = "HORCRUX_PGTEST_GUARD"

const (
	modeServe = "serve" // runs the shared server itself, so that the test process has no goroutine of it
	modeWatch = "watch" // only cleans up after a server that the test runs
)

// What the guard answers on its standard output once it stands.
const (
	answerReady   = "ready "
	answerMissing = "missing "
	answerFailed  = "failed "
)

// guard is the test process's end of its guard: the guard lives until the pipe to its standard input closes, which the
// kernel does when the test process ends.
type guard struct {
	dir  string
	cmd  *exec.Cmd
	pipe io.WriteCloser
	dsn  string // of the shared server
}

func init() {
	if mode, dir, ok := strings.Cut(os.Getenv(guardEnv), ":"); ok {
		os.Exit(runGuard(mode, dir))
	}
}

// startGuard makes a folder and a guard for it.
func startGuard(mode string) (*guard, error) {
	dir, err := makeDir()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), guardEnv+"="+mode+":"+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // an interrupt is for the tests; the guard cleans up after them
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	g := &guard{dir: dir, cmd: cmd, pipe: pipe}
	line, err := bufio.NewReader(out).ReadString('\n')
	line = strings.TrimSuffix(line, "\n")
	if rest, ok := strings.CutPrefix(line, answerReady); ok && err == nil {
		g.dsn = rest
		return g, nil
	}
	switch rest, missing := strings.CutPrefix(line, answerMissing); {
	case err != nil:
		err = fmt.Errorf("the guard did not answer: %w", err)
	case missing:
		err = fmt.Errorf("%w: %s", pgserver.ErrNotInstalled, rest)
	default:
		err = errors.New(strings.TrimPrefix(line, answerFailed))
	}
	return nil, errors.Join(err, g.close())
}

// close ends the guard and waits until its server is stopped and its folder gone.
func (g *guard) close() error {
	return errors.Join(g.pipe.Close(), g.cmd.Wait())
}

func options(dir string) pgserver.Options {
	return pgserver.Options{
		Dir:            filepath.Join(dir, "pg"),
		SocketDir:      filepath.Join(dir, "s"),
		MaxConnections: connections,
		Volatile:       true,
	}
}

// makeDir makes a temporary folder that the server's user can get to: TMPDIR may be closed to it.
func makeDir() (string, error) {
	dir, err := os.MkdirTemp("", "pgtest-")
	if err != nil || os.Geteuid() != 0 {
		return dir, err
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	server, err := osuser.Lookup("postgres")
	if err != nil || server.Reach(dir) == nil {
		return dir, nil // a missing user is reported by the start of the server
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if dir, err = os.MkdirTemp("/var/tmp", "pgtest-"); err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o711)
}

// runGuard is the guard's main.
func runGuard(mode, dir string) int {
	answer, stop := answerReady, func(context.Context) error { return nil }
	switch mode {
	case modeServe:
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		s, err := pgserver.Start(ctx, options(dir))
		cancel()
		switch {
		case errors.Is(err, pgserver.ErrNotInstalled):
			answer = answerMissing + err.Error()
		case err != nil:
			answer = answerFailed + err.Error()
		default:
			answer, stop = answerReady+s.DSN(pgserver.Database), s.Stop
		}
	case modeWatch:
		stop = func(ctx context.Context) error { return pgserver.Halt(ctx, options(dir).Dir) }
	}
	fmt.Println(strings.ReplaceAll(answer, "\n", " "))
	_, err := io.Copy(io.Discard, os.Stdin) // until the test process has ended

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := errors.Join(err, stop(ctx), os.RemoveAll(dir)); err != nil {
		return 1
	}
	return 0
}
