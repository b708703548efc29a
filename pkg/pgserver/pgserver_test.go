package pgserver_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"horcrux/pkg/osuser"
	"horcrux/pkg/pgserver"
	"horcrux/pkg/pgserver/pgtest"
)

// childEnv makes the test binary start a server of the folders given, say its pid, and wait to be killed.
const childEnv = "PGSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if dirs := os.Getenv(childEnv); dirs != "" {
		dir, socketDir, _ := strings.Cut(dirs, ":")
		s, err := pgserver.Start(context.Background(), pgserver.Options{Dir: dir, SocketDir: socketDir})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(s.Pid())
		select {}
	}
	goleak.VerifyTestMain(m)
}

// start starts a server that the test's end stops.
func start(t *testing.T, o pgserver.Options) *pgserver.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := pgserver.Start(ctx, o)
	if errors.Is(err, pgserver.ErrNotInstalled) {
		t.Skipf("real: postgres: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *pgserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// eventually polls until cond is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ask returns the one text that a query answers.
func ask(ctx context.Context, s *pgserver.Server, sql string) (string, error) {
	conn, err := pgx.Connect(ctx, s.DSN(pgserver.Database))
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx) // only asked
	var answer string
	err = conn.QueryRow(ctx, sql).Scan(&answer)
	return answer, err
}

func mustAsk(t *testing.T, s *pgserver.Server, sql string) string {
	t.Helper()
	answer, err := ask(t.Context(), s, sql)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return answer
}

// keep writes a row that "SELECT what FROM kept" finds.
func keep(t *testing.T, s *pgserver.Server) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), s.DSN(pgserver.Database))
	if err != nil {
		t.Fatal(err)
	}
	_, err = conn.Exec(t.Context(), "CREATE TABLE kept AS SELECT 'here' AS what")
	if err := errors.Join(err, conn.Close(t.Context())); err != nil {
		t.Fatal(err)
	}
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

func TestStart(t *testing.T) {
	o := pgtest.Options(t)
	s := start(t, o)

	t.Run("settings", func(t *testing.T) {
		for name, want := range map[string]string{
			"listen_addresses": "", "max_prepared_transactions": "0", "fsync": "on", "synchronous_commit": "on",
			"full_page_writes": "on", "jit": "off", "data_checksums": "on", "server_encoding": "UTF8",
			"max_logical_replication_workers": "0", "idle_in_transaction_session_timeout": "30s", "lock_timeout": "30s",
		} {
			if got := mustAsk(t, s, "SELECT current_setting('"+name+"')"); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
	t.Run("nothing failed to apply", func(t *testing.T) {
		if got := mustAsk(t, s, "SELECT coalesce(string_agg(name, ' '), '') FROM pg_file_settings WHERE error IS NOT NULL"); got != "" {
			t.Fatalf("settings with an error: %s", got)
		}
	})
	t.Run("the socket is closed to others", func(t *testing.T) {
		info, err := os.Stat(o.SocketDir)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Fatalf("mode %v, %v", info.Mode(), err)
		}
	})
	t.Run("root gives the server away", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("not root")
		}
		info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(s.Pid())))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid == 0 {
			t.Fatalf("the server runs as root, %v", err)
		}
	})
}

func TestStopKeepsData(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	s := start(t, o)
	keep(t, s)
	stop(t, s)
	stop(t, s) // again, which does nothing
	if _, err := os.Stat(filepath.Join(o.Dir, "data/postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("the pid file is left: %v", err)
	}
	if got := mustAsk(t, start(t, o), "SELECT what FROM kept"); got != "here" {
		t.Fatalf("got %q", got)
	}
}

// child starts a server in a process of its own and returns that process and the server's pid.
func child(t *testing.T, o pgserver.Options) (*exec.Cmd, int) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+o.Dir+":"+o.SocketDir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatalf("the child did not say a pid: %v", err)
	}
	return cmd, pid
}

func TestTakesOverAfterKill(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	cmd, pid := child(t, o)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()

	s := start(t, o)
	if s.Pid() != pid {
		t.Fatalf("pid %d was started where %d ran", s.Pid(), pid)
	}
	t.Run("and supervises it", func(t *testing.T) {
		kill(t, pid, syscall.SIGKILL)
		eventually(t, "a new server answers", func() bool {
			_, err := ask(t.Context(), s, "SELECT ''")
			return err == nil && s.Pid() != pid
		})
	})
}

func TestReplacesOneThatListensElsewhere(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	cmd, pid := child(t, o)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	o.SocketDir += "2"
	s := start(t, o)
	if s.Pid() == pid {
		t.Fatal("a server was taken over that does not listen where it should")
	}
	mustAsk(t, s, "SELECT ''")
}

func TestClearsStalePidFile(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		pid  int
	}{
		{"of a process that is gone", 1 << 22}, // above pid_max's largest
		{"of a process that is something else", os.Getpid()},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := pgtest.Options(t)
			s := start(t, o)
			stop(t, s)
			text := fmt.Sprintf("%d\n%s\n0\n5432\n%s\n", c.pid, filepath.Join(o.Dir, "data"), o.SocketDir)
			if err := os.WriteFile(filepath.Join(o.Dir, "data/postmaster.pid"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			mustAsk(t, start(t, o), "SELECT ''")
		})
	}
}

func TestRestartsWhenItDies(t *testing.T) {
	t.Parallel()
	s := start(t, pgtest.Options(t))
	keep(t, s)
	for range 2 {
		pid := s.Pid()
		kill(t, pid, syscall.SIGKILL)
		eventually(t, "a new server answers", func() bool {
			got, err := ask(t.Context(), s, "SELECT what FROM kept")
			return err == nil && got == "here" && s.Pid() != pid
		})
	}
}

func TestGivesUp(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	o.Hasten()
	s := start(t, o)
	if err := os.WriteFile(filepath.Join(o.Dir, "local.conf"), []byte("shared_buffers = 'plenty'\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	kill(t, s.Pid(), syscall.SIGKILL)
	select {
	case <-s.Done():
	case <-time.After(time.Minute):
		t.Fatal("it is tried for ever")
	}
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "local.conf") {
		t.Fatalf("got %v, want an error that names local.conf", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, pgtest.Options(t))
	kill(t, s.Pid(), syscall.SIGSTOP) // it hears neither of the two signals that it could act on
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if _, err := ask(t.Context(), s, "SELECT ''"); err == nil {
		t.Fatal("it still answers")
	}
}

func TestHalt(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	cmd, pid := child(t, o)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for range 2 { // the second finds nothing to stop
		if err := pgserver.Halt(t.Context(), o.Dir); err != nil {
			t.Fatal(err)
		}
	}
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil {
		t.Fatalf("%s still runs", comm)
	}
}

func TestKilledInitdb(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+o.Dir+":"+o.SocketDir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	unfinished := func() []string {
		found, err := filepath.Glob(filepath.Join(o.Dir, "initdb-*/PG_VERSION"))
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	eventually(t, "initdb is at work", func() bool { return len(unfinished()) > 0 })
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := os.Stat(filepath.Join(o.Dir, "data")); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("there is half a cluster: %v", err)
	}
	mustAsk(t, start(t, o), "SELECT ''")
}

func TestBoundsItsLog(t *testing.T) {
	t.Parallel()
	o := pgtest.Options(t)
	stop(t, start(t, o))
	log := filepath.Join(o.Dir, "postgres.log")
	if err := os.Truncate(log, pgserver.LogLimit+1); err != nil {
		t.Fatal(err)
	}
	start(t, o)
	for path, limit := range map[string]int64{log: 1 << 20, log + ".1": pgserver.LogLimit} {
		info, err := os.Stat(path)
		if err != nil || info.Size() > limit || info.Size() == 0 {
			t.Errorf("%s has %d bytes, %v", path, info.Size(), err)
		}
	}
}

func TestStartSaysWhatToMend(t *testing.T) {
	t.Parallel()
	refused := func(t *testing.T, o pgserver.Options, want ...string) {
		t.Helper()
		s, err := pgserver.Start(t.Context(), o)
		if err == nil {
			stop(t, s)
			t.Fatal("it started")
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q does not say %q", err, w)
			}
		}
	}
	t.Run("a socket's path too long", func(t *testing.T) {
		o := pgtest.Options(t)
		o.SocketDir = filepath.Join(o.Dir, strings.Repeat("x", 100))
		refused(t, o, o.SocketDir, "too many")
	})
	t.Run("a folder that its user cannot enter", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("not root: the server's user is ours")
		}
		o := pgtest.Options(t)
		home := filepath.Join(filepath.Dir(o.Dir), "home")
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		o.Dir = filepath.Join(home, "pg")
		var closed *osuser.ClosedError
		_, err := pgserver.Start(t.Context(), o)
		if !errors.As(err, &closed) || closed.Dir != home || closed.User != "postgres" {
			t.Fatalf("got %v, want it to name %s", err, home)
		}
	})
	t.Run("data of a version not installed", func(t *testing.T) {
		o := pgtest.Options(t)
		stop(t, start(t, o))
		if err := os.WriteFile(filepath.Join(o.Dir, "data/PG_VERSION"), []byte("9\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, o, "version 9", "apt-get", "emerge")
	})
	t.Run("a setting of local.conf", func(t *testing.T) {
		o := pgtest.Options(t)
		stop(t, start(t, o))
		if err := os.WriteFile(filepath.Join(o.Dir, "local.conf"), []byte("no_such_thing = 1\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		refused(t, o, "local.conf", "postgres.log")
	})
	t.Run("something else where the data should be", func(t *testing.T) {
		o := pgtest.Options(t)
		if err := os.MkdirAll(filepath.Join(o.Dir, "data"), 0o755); err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			u, err := osuser.Lookup("postgres")
			if err != nil {
				t.Skipf("real: postgres: %v", err)
			}
			if err := os.Chown(filepath.Join(o.Dir, "data"), int(u.UID), int(u.GID)); err != nil {
				t.Fatal(err)
			}
		}
		refused(t, o, "holds no Postgres data")
	})
}

func TestParseVersion(t *testing.T) {
	for line, want := range map[string]int{
		"postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n": 15,
		"postgres (PostgreSQL) 18beta1\n":                        18,
		"postgres (PostgreSQL) 17.2\n":                           17,
		"postgres (PostgreSQL) devel\n":                          0,
		"something else 3\n":                                     0,
	} {
		got, err := pgserver.ParseVersion(line)
		if got != want || (err != nil) != (want == 0) {
			t.Errorf("%q: got %d, %v", line, got, err)
		}
	}
}
