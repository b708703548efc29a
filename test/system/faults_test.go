package system_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
	"horcrux/pkg/pgserver"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
	"horcrux/test/instance"
)

const heal = 30 * time.Second

// TestFaults takes away, one after the other, the daemons that an instance stands on, and its memory of what it sent.
func TestFaults(t *testing.T) {
	i := qemuInstance(t)
	i.Start()
	i.Must("POST", "/api/vms", small("deaf", map[string]any{"start": true}))
	i.Run(t, "libvirtd is killed in the middle of a create", func(t *testing.T) {
		disks := make([]any, 8)
		for n := range disks {
			disks[n] = map[string]any{"size_gb": 1}
		}
		id := accepted(i, "POST", "/api/vms", small("many", map[string]any{"disks": disks, "start": true}))
		killLibvirt(t, i)
		if op := operationOf(i, id.String()); op.State != operation.StateSucceeded {
			t.Fatalf("operation: %s %+v", op.State, op.Error)
		}
		instance.Eventually(t, heal, "it is ready", func() bool { return i.Readiness()["hypervisor"] })
		for _, name := range []string{"deaf", "many"} {
			if state := virsh(t, i, "domstate", name); state != "running" {
				t.Errorf("%s is %s", name, state)
			}
		}
		i.Must("DELETE", "/api/vms/many?force=true", nil)
	})
	i.Run(t, "libvirtd hangs", func(t *testing.T) {
		pid := pidIn(t, i, "libvirt/libvirtd.pid")
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(pid, syscall.SIGCONT) //nolint:errcheck // it may go on already
		op := operationOf(i, accepted(i, "POST", "/api/vms/deaf/stop", nil).String())
		if op.State != operation.StateFailed || op.Error == nil || op.Error.Code != problem.HypervisorUnavailable {
			t.Errorf("operation: %s %+v", op.State, op.Error)
		}
		instance.Eventually(t, heal, "/readyz says so", func() bool { return !i.Readiness()["hypervisor"] })
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		instance.Eventually(t, heal, "it is ready", func() bool { return i.Readiness()["hypervisor"] })
		if state := virsh(t, i, "domstate", "deaf"); state != "running" {
			t.Errorf("the domain is %s", state)
		}
	})
	i.Run(t, "Postgres is killed while operations are under way", func(t *testing.T) { losePostgres(t, i) })
	i.Run(t, "NATS has lost its store", func(t *testing.T) { loseStreams(t, i) })
	i.Run(t, "SIGTERM answers who waits and leaves the guests", func(t *testing.T) { drain(t, i) })
	i.Run(t, "audit verify finds a byte that was changed", func(t *testing.T) { tamper(t, i) })
}

func losePostgres(t *testing.T, i *instance.Instance) {
	const volumes = 5
	var ids []string
	for n := range volumes {
		ids = append(ids, accepted(i, "POST", "/api/storage/pools/local/volumes", map[string]any{"name": fmt.Sprint("v", n), "size_gb": 1}).String())
	}
	ids = append(ids, accepted(i, "POST", "/api/vms/deaf/shutdown", map[string]any{"timeout_s": 2}).String())
	killPostgres(t, i)
	instance.Eventually(t, heal, "the database is back", func() bool {
		return i.Do("GET", "/api/vms", nil).StatusCode == http.StatusOK && i.Readiness()["postgres"]
	})
	for n, id := range ids {
		op := operationOf(i, id)
		if n < volumes && op.State != operation.StateSucceeded || n == volumes && (op.Error == nil || op.Error.Code != problem.DeadlineExceeded) {
			t.Errorf("%s: %s %+v", op.Type, op.State, op.Error)
		}
	}
	if files := volumeFiles(t, i); len(files) != volumes {
		t.Errorf("%d volumes have the files %q", volumes, files)
	}
	for n := range volumes {
		i.Must("DELETE", fmt.Sprint("/api/storage/pools/local/volumes/v", n), nil)
	}
}

// loseStreams loses the streams while nothing runs, with one command recorded and not yet sent.
func loseStreams(t *testing.T, i *instance.Instance) {
	i.Kill()
	i.Start("HORCRUX_CRASHPOINT=recorded:vm.stop", "HORCRUX_CRASHPOINT_ONCE="+t.TempDir()+"/once")
	if a, err := i.Try("POST", "/api/vms/deaf/stop", nil, "Idempotency-Key", "lost"); err == nil {
		t.Fatalf("the process did not reach the point: %d %s", a.StatusCode, a.Bytes)
	}
	i.Died()
	if err := os.RemoveAll(filepath.Join(i.Dir, "nats")); err != nil {
		t.Fatal(err)
	}
	i.Start()
	instance.Eventually(t, heal, "the command is swept", func() bool {
		return i.Do("POST", "/api/vms/deaf/stop", nil, "Idempotency-Key", "lost").StatusCode == http.StatusAccepted
	})
	if op := i.Operation("POST", "/api/vms/deaf/stop", nil, "Idempotency-Key", "lost"); op.State != operation.StateSucceeded {
		t.Errorf("operation: %s %+v", op.State, op.Error)
	}
	if state := virsh(t, i, "domstate", "deaf"); state != "shut off" {
		t.Errorf("the domain is %s", state)
	}
	i.Must("POST", "/api/vms/deaf/start", nil)
	settled(t, i)
}

// drain ends the process while a call waits and a stream is open. What is under way goes on after the next start.
func drain(t *testing.T, i *instance.Instance) {
	log := openStream(t, i, "")
	log.until("vm.started")
	type outcome struct {
		instance.Answer
		error
	}
	answer := make(chan outcome, 1)
	go func() { // ends with the answer, which is waited for
		a, err := i.Try("POST", "/api/vms/deaf/shutdown?wait=300", map[string]any{"timeout_s": 600}, "Idempotency-Key", "drained")
		answer <- outcome{a, err}
	}()
	instance.Eventually(t, heal, "it is asked", func() bool {
		var v openapi.VM
		i.Get("/api/vms/deaf", &v)
		return v.State == vm.StateStopping
	})
	guest := pidIn(t, i, "libvirt/run/qemu/deaf.pid")
	begun := time.Now()
	i.Stop()
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("it took %s", took)
	}
	if a := <-answer; a.error != nil || a.StatusCode != http.StatusOK || !strings.Contains(string(a.Bytes), `"state":"running"`) {
		t.Errorf("who waited got %v %s", a.error, a.Bytes)
	}
	log.end()
	if !alive(guest) {
		t.Error("the guest has ended")
	}
	for _, p := range processes(t, i) {
		if !strings.Contains(p, "qemu-system") && !strings.Contains(p, "dnsmasq") { // the guest and its network
			t.Errorf("left behind: %s", p)
		}
	}

	i.Start()
	var list openapi.OperationList
	if i.Get("/api/operations?state=running", &list); len(list.Items) != 1 || list.Items[0].Type != "vm.shutdown" {
		t.Errorf("running: %+v", list.Items)
	}
	i.Must("POST", "/api/vms/deaf/stop", nil)
	i.Stop()
	if left := processes(t, i); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	i.Start()
}

// tamper changes one byte of an event behind the log's back, as only the owner of the database can.
func tamper(t *testing.T, i *instance.Instance) {
	verify := func(code int, says string) {
		t.Helper()
		if r := i.CLI("audit", "verify", "--data-dir", i.Dir); r.Code != code || !strings.Contains(r.Out, says) {
			t.Errorf("audit verify: %d, want %d and %q\n%s%s", r.Code, code, says, r.Out, r.Err)
		}
	}
	verify(0, " 0 findings")
	ctx, cancel := context.WithTimeout(t.Context(), heal)
	defer cancel()
	conn, err := pgx.Connect(ctx, pgserver.DSN(filepath.Join(i.Dir, "pg"), pgserver.Database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	change := func(from, to string) error {
		_, err := conn.Exec(ctx, `UPDATE eventstore.events SET data = replace(data::text, $1, $2)::jsonb WHERE type = 'vm.create_requested'`, from, to)
		return err
	}
	if err := change("deaf", "dear"); err == nil {
		t.Error("the events table let itself be changed")
	}
	for _, step := range []struct {
		from, to string
		code     int
		says     string
	}{{"deaf", "dear", 1, " 1 finding"}, {"dear", "deaf", 0, " 0 findings"}} {
		for _, do := range []func() error{
			func() error {
				_, err := conn.Exec(ctx, `ALTER TABLE eventstore.events DISABLE TRIGGER append_only`)
				return err
			},
			func() error { return change(step.from, step.to) },
			func() error {
				_, err := conn.Exec(ctx, `ALTER TABLE eventstore.events ENABLE ALWAYS TRIGGER append_only`)
				return err
			},
		} {
			if err := do(); err != nil {
				t.Fatal(err)
			}
		}
		verify(step.code, step.says)
	}
}

// TestHypervisorAbsent starts without a libvirtd, gets one, and loses it again.
func TestHypervisorAbsent(t *testing.T) {
	i := bareInstance(t)
	home := filepath.Join(filepath.Dir(i.Dir), "l")
	if err := os.Mkdir(home, 0o755); err != nil {
		t.Fatal(err)
	}
	options := libvirtd.Options{Dir: home, SocketDir: home}
	uri := "qemu+unix:///system?socket=" + filepath.Join(home, "libvirt-sock")
	i.Args = append(i.Args, "--libvirt-uri", uri)
	i.Start()

	absent := func(t *testing.T) {
		t.Helper()
		if a := i.Do("GET", "/readyz", nil); a.StatusCode != http.StatusServiceUnavailable || i.Readiness()["hypervisor"] || !i.Readiness()["storage"] {
			t.Errorf("/readyz: %d %s", a.StatusCode, a.Bytes)
		}
		var before, after openapi.VMList
		i.Get("/api/vms", &before)
		status, p := i.Problem("POST", "/api/vms", small("early", map[string]any{"disks": []any{map[string]any{"size_gb": 1}}}))
		if status != http.StatusServiceUnavailable || p.Code != problem.HypervisorUnavailable || !strings.Contains(p.Detail, "hypervisor") {
			t.Errorf("create: %d %+v", status, p)
		}
		if i.Get("/api/vms", &after); len(after.Items) != len(before.Items) || len(volumeFiles(t, i)) != 0 {
			t.Errorf("left behind: %+v %q", after.Items, volumeFiles(t, i))
		}
		settled(t, i)
		i.Must("POST", "/api/storage/pools/local/volumes", map[string]any{"name": "v", "size_gb": 1})
		i.Must("DELETE", "/api/storage/pools/local/volumes/v", nil)
	}
	comes := func(t *testing.T) func(context.Context) error {
		t.Helper()
		d, err := libvirtd.Start(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Stop(context.Background()) }) // stopped by then, unless the test has failed
		instance.Eventually(t, heal, "it is ready by itself", func() bool { return i.Do("GET", "/readyz", nil).StatusCode == http.StatusOK })
		return d.Stop
	}

	i.Run(t, "absent from the start", absent)
	i.Run(t, "comes, and goes", func(t *testing.T) {
		stop := comes(t)
		i.Must("POST", "/api/vms", small("early", map[string]any{"start": true})) // the name is free
		if err := stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		instance.Eventually(t, heal, "it is missed", func() bool { return !i.Readiness()["hypervisor"] })
		absent(t)
		for verb, path := range map[string]string{"POST": "/api/vms/early/stop", "PATCH": "/api/vms/early", "DELETE": "/api/vms/early?force=true"} {
			body := map[string]any{"PATCH": map[string]any{"description": "x"}}[verb]
			if status, p := i.Problem(verb, path, body); status != http.StatusServiceUnavailable || p.Code != problem.HypervisorUnavailable {
				t.Errorf("%s %s: %d %+v", verb, path, status, p)
			}
		}
		var v openapi.VM
		i.Get("/api/vms/early", &v)
		if v.State != vm.StateRunning {
			t.Errorf("shown as %s", v.State)
		}
	})
	i.Run(t, "comes again, and finds what went on", func(t *testing.T) {
		stop := comes(t)
		i.Must("DELETE", "/api/vms/early?force=true", nil)
		if err := stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}
