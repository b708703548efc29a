package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// logLimit bounds postgres.log; one older log of at most that size is kept.
	logLimit = 8 << 20
	// orphanLimit is how long the sessions of a killed postmaster may take to notice that it is gone.
	orphanLimit = 10 * time.Second
	// pollEvery is the pause between looks at something that changes within milliseconds.
	pollEvery = 20 * time.Millisecond
)

var errEnded = errors.New("the server ended")

// bringUp takes over the server that runs, or starts one.
func (c *cluster) bringUp(ctx context.Context) (*process, error) {
	pid, ok, err := c.running()
	if err != nil {
		return nil, err
	}
	if ok {
		p, err := c.takeOver(ctx, pid)
		if p != nil || err != nil {
			return p, err
		}
	}
	if err := c.clearStale(ctx); err != nil {
		return nil, err
	}
	return c.launch(ctx)
}

// takeOver adopts the server that runs as pid. One that does not answer where its clients look, because it was started
// with another folder for sockets or is ending, is stopped, and nil returned.
func (c *cluster) takeOver(ctx context.Context, pid int) (*process, error) {
	p, err := watch(pid)
	if err != nil {
		return nil, err
	}
	if lines, err := c.readPidFile(); err == nil && len(lines) > 4 && lines[4] == c.socketDir {
		if err := p.handle.Signal(syscall.SIGHUP); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return nil, fmt.Errorf("reload process %d: %w", pid, err)
		}
		err := c.awaitAnswer(ctx, p)
		if err == nil {
			c.Logger.Info("took over the postgres that was running", "pid", pid)
			return p, nil
		}
		c.Logger.Warn("the postgres that was running does not answer", "pid", pid, "error", err)
	}
	if err := p.stop(context.WithoutCancel(ctx)); err != nil {
		c.Logger.Warn("the postgres that was running was ended", "error", err)
	}
	return nil, ctx.Err()
}

// launch starts the server and waits for its answer.
func (c *cluster) launch(ctx context.Context) (*process, error) {
	if err := c.boundLog(); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.logFile(), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o640)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the server has its own copy of the descriptor
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(c.bin.path("postgres"), "-D", c.data(), "-c", "config_file="+filepath.Join(c.dir, "postgresql.conf"))
	c.dress(cmd)
	cmd.Stdout, cmd.Stderr = log, log
	p, err := spawn(cmd)
	if err != nil {
		return nil, err
	}
	if err := c.awaitAnswer(ctx, p); err != nil {
		if said, readErr := io.ReadAll(io.NewSectionReader(log, begin, logLimit)); readErr == nil && len(said) > 0 {
			err = fmt.Errorf("%w: %s (see %s)", err, complaint(string(said)), c.logFile())
		}
		return nil, errors.Join(err, p.stop(context.WithoutCancel(ctx)))
	}
	c.Logger.Info("postgres runs", "pid", p.pid, "version", c.bin.major, "socket", c.socket())
	return p, nil
}

// awaitAnswer returns when the server takes connections, and with an error when it ended or ctx did.
func (c *cluster) awaitAnswer(ctx context.Context, p *process) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := c.ping(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.done:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("no answer in time: %w", err)
		case <-tick.C:
		}
	}
}

// readPidFile returns the lines of postmaster.pid: pid, data directory, start, port, socket folder, …
func (c *cluster) readPidFile() ([]string, error) {
	raw, err := os.ReadFile(c.pidFile())
	if err != nil {
		return nil, err
	}
	return strings.Split(string(raw), "\n"), nil
}

// running returns the pid of the live postmaster of this data directory. A pid file alone proves nothing: its number
// may belong to something else since, or to a process that ended and was not reaped.
func (c *cluster) running() (pid int, ok bool, err error) {
	lines, err := c.readPidFile()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	pid, err = strconv.Atoi(strings.TrimSpace(lines[0]))
	if err != nil || pid <= 1 {
		return 0, false, nil // a file cut short by a crash names nobody
	}
	return pid, c.isOurs(pid), nil
}

// isOurs says whether a process is a live Postgres of this data directory: Postgres works inside it. A process that
// has ended has no working directory, reaped or not.
func (c *cluster) isOurs(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	comm, err := os.ReadFile(filepath.Join(proc, "comm"))
	if err != nil || strings.TrimSpace(string(comm)) != "postgres" {
		return false
	}
	cwd, err := os.Stat(filepath.Join(proc, "cwd"))
	if err != nil {
		return false
	}
	data, err := os.Stat(c.data())
	return err == nil && os.SameFile(cwd, data)
}

// clearStale removes the pid file that a killed postmaster left and waits until its sessions have noticed: until then
// they hold the shared memory, and a new server would refuse to start.
func (c *cluster) clearStale(ctx context.Context) error {
	err := os.Remove(c.pidFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c.Logger.Warn("cleared a stale pid file of postgres", "file", c.pidFile())
	ctx, cancel := context.WithTimeout(ctx, orphanLimit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for c.orphaned() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("sessions of a killed postgres still run in %s: %w", c.data(), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// orphaned says whether any process of this data directory is left.
func (c *cluster) orphaned() bool {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false // without /proc the server's own check of its shared memory remains
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && c.isOurs(pid) {
			return true
		}
	}
	return false
}

func (c *cluster) logFile() string { return filepath.Join(c.dir, "postgres.log") }

// boundLog moves a log that has grown too long aside. The server keeps its descriptor, so the content is copied and
// the file emptied; a line written in between is lost.
func (c *cluster) boundLog() error {
	info, err := os.Stat(c.logFile())
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() < logLimit) {
		return nil
	}
	if err != nil {
		return err
	}
	from, err := os.Open(c.logFile())
	if err != nil {
		return err
	}
	defer from.Close() // it was only read
	to, err := os.OpenFile(c.logFile()+".1", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, io.NewSectionReader(from, max(0, info.Size()-logLimit), logLimit))
	if err := errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Truncate(c.logFile(), 0)
}

// complaint picks out of what the server logged the line that says why it ended.
func complaint(log string) string {
	lines := strings.Split(strings.TrimSpace(log), "\n")
	for _, line := range lines {
		if strings.Contains(line, "FATAL:") || strings.Contains(line, "PANIC:") {
			return line
		}
	}
	return lines[len(lines)-1]
}
