package system_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/test/instance"
)

// The load: commands a second on so many machines, of which a few are started and stopped.
const (
	loadRate    = 20
	loadVMs     = 50
	loadPower   = 5
	loadAtOnce  = 64              // requests under way; what is due beyond them is left out
	loadBetween = 2 * time.Second // faults
	loadFull    = 8 * time.Second // for so long the disk is full, at least
)

// TestLoad sends commands all the while daemons are killed, the store of NATS is deleted and the disk is full. What was
// accepted comes to its end, once.
func TestLoad(t *testing.T) {
	i := diskInstance(t)
	i.Start()
	l := &load{t: t, i: i}
	l.make()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { l.run(ctx) })
	running.Go(func() { l.poll(ctx) })
	for round := range 3 {
		for _, f := range []struct {
			name string
			make func()
		}{
			{"Postgres is killed", func() { killPostgres(t, i) }},
			{"NATS's store is deleted", l.deleteStreams},
			{"libvirtd is killed", l.killLibvirt},
			{"the disk is full", l.fillDisk},
		} {
			t.Logf("%s: round %d: %s", time.Now().Format(time.TimeOnly), round, f.name)
			f.make()
			l.healed(f.name)
			time.Sleep(loadBetween) // of load on what has healed
		}
	}
	stop()
	running.Wait()
	l.settle()
	l.compare()
}

// load is what was asked for and what came of it.
type load struct {
	t *testing.T
	i *instance.Instance

	mu       sync.Mutex
	accepted []string // operations
	refused  map[string]int
	unready  map[string]time.Time // dependencies, and when they were last said not to be ready
	kills    []time.Time          // of libvirtd
	unserved time.Time            // when a command was last answered 503
}

// diskInstance is an instance whose data dir is a small file system of its own.
func diskInstance(t *testing.T) *instance.Instance {
	t.Helper()
	if testing.Short() {
		t.Skip("starts daemons")
	}
	if os.Geteuid() != 0 {
		t.Skip("real: mount: only root mounts a file system")
	}
	base, err := os.MkdirTemp("/var/tmp", "hxd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(base); err != nil {
			t.Error(err)
		}
	})
	image, dir := filepath.Join(base, "image"), filepath.Join(base, "d")
	if err := errors.Join(os.Chmod(base, 0o755), os.Mkdir(dir, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 1<<30)); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{"mkfs.ext4", "-q", "-m", "0", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("real: mount: %v: %v %s", argv, err, out)
		}
	}
	t.Cleanup(func() { // after the instance's own
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, errors.Join(err, unix.Unmount(dir, unix.MNT_DETACH)))
		}
	})
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	i := qemuInstance(t)
	i.Dir = dir
	return i
}

func name(n int) string { return fmt.Sprintf("load-%02d", n%loadVMs) }

// make makes the machines.
func (l *load) make() {
	l.refused, l.unready = map[string]int{}, map[string]time.Time{}
	for n := range loadVMs {
		l.accepted = append(l.accepted, accepted(l.i, "POST", "/api/vms", small(name(n), nil)).String())
	}
	for _, id := range l.accepted {
		if op := operationOf(l.i, id); op.State != operation.StateSucceeded {
			l.t.Fatalf("create: %s %+v", op.State, op.Error)
		}
	}
}

// run sends commands until ctx ends, and waits for their answers.
func (l *load) run(ctx context.Context) {
	var under sync.WaitGroup
	defer under.Wait()
	places := make(chan struct{}, loadAtOnce)
	tick := time.NewTicker(time.Second / loadRate)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
			under.Go(func() { l.send(n); <-places })
		default:
			l.count("left out")
		}
	}
}

// send sends the nth command. Most change a description; one a second starts or stops a machine, or makes or deletes a
// volume.
func (l *load) send(n int) {
	method, path, body := "PATCH", "/api/vms/"+name(n), any(map[string]any{"description": fmt.Sprint("change ", n)})
	if n%loadRate == 0 {
		// A machine runs for two rounds of this before it is stopped.
		round := n / loadRate / 4
		volume := fmt.Sprint("v", round)
		switch n / loadRate % 4 {
		case 0:
			method, path, body = "POST", "/api/vms/"+name(round%loadPower)+"/start", nil
		case 1:
			method, path, body = "POST", "/api/vms/"+name((round+loadPower-2)%loadPower)+"/stop", nil
		case 2:
			method, path, body = "POST", "/api/storage/pools/local/volumes", map[string]any{"name": volume, "size_gb": 1}
		case 3:
			method, path, body = "DELETE", "/api/storage/pools/local/volumes/"+volume, nil
		}
	}
	a, err := l.i.Try(method, path, body)
	switch {
	case err != nil:
		l.count("no answer: " + err.Error())
	case a.StatusCode == http.StatusAccepted:
		id, _ := strings.CutPrefix(a.Header.Get("Location"), "/api/operations/")
		l.mu.Lock()
		defer l.mu.Unlock()
		l.accepted = append(l.accepted, id)
	default:
		var p struct{ Code string }
		_ = json.Unmarshal(a.Bytes, &p) // what is no problem has no code
		l.count(fmt.Sprint(a.StatusCode, " ", p.Code))
		if a.StatusCode == http.StatusServiceUnavailable {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.unserved = time.Now()
		}
	}
}

func (l *load) count(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[what]++
}

// poll notes what /readyz says.
func (l *load) poll(ctx context.Context) {
	for ctx.Err() == nil {
		a, err := l.i.Try("GET", "/readyz", nil)
		var all openapi.Readiness
		if err != nil || json.Unmarshal(a.Bytes, &all) != nil {
			l.count(fmt.Sprint("/readyz: ", err))
		}
		l.mu.Lock()
		for _, d := range all.Dependencies {
			if !d.Ready {
				l.unready[d.Name] = time.Now()
			}
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// said waits until /readyz says since a moment that one of the dependencies is not ready.
func (l *load) said(since time.Time, dependencies ...string) {
	l.t.Helper()
	instance.Eventually(l.t, heal, fmt.Sprintf("/readyz says that one of %v is not ready", dependencies), func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return slices.ContainsFunc(dependencies, func(d string) bool { return l.unready[d].After(since) })
	})
}

// healed waits until everything is ready again.
func (l *load) healed(after string) {
	l.t.Helper()
	begin := time.Now()
	instance.Eventually(l.t, 2*time.Minute, "it is ready after "+after, func() bool {
		a, err := l.i.Try("GET", "/readyz", nil)
		return err == nil && a.StatusCode == http.StatusOK
	})
	l.t.Logf("ready after %s", time.Since(begin).Round(time.Millisecond))
}

func (l *load) deleteStreams() {
	instance.Eventually(l.t, heal, "the store is deleted", func() bool {
		return os.RemoveAll(filepath.Join(l.i.Dir, "nats")) == nil // the server may write while it is deleted
	})
	instance.Eventually(l.t, heal, "there is a store again", func() bool {
		_, err := os.Stat(filepath.Join(l.i.Dir, "nats", "jetstream", "$G", "streams", events.CommandStream))
		return err == nil
	})
}

func (l *load) killLibvirt() {
	begin := time.Now()
	l.kills = append(l.kills, begin)
	killLibvirt(l.t, l.i)
	l.said(begin, "hypervisor")
}

// refusedFor says whether so much time has passed since a moment, and a command of it was not served. Files that were
// made larger than they had to be take a few of them.
func (l *load) refusedFor(since time.Time, d time.Duration) bool {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(since) > 10*d {
		l.t.Fatalf("everything was served for %s", 10*d)
	}
	return time.Since(since) > d && l.unserved.After(since)
}

// fillDisk takes all the room that there is, and gives it back.
func (l *load) fillDisk() {
	begin := time.Now()
	filler := filepath.Join(l.i.Dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	defer func() { // also after a failure: what cleans up needs room
		if err := os.Remove(filler); err != nil {
			l.t.Error(err)
		}
	}()
	full := func() {
		for n := int64(1 << 30); n > 0; n /= 2 {
			for end := int64(0); err == nil; end += n {
				info, _ := f.Stat()
				err = unix.Fallocate(int(f.Fd()), 0, info.Size(), n)
			}
			if !errors.Is(err, unix.ENOSPC) {
				l.t.Fatal(err)
			}
			err = nil
		}
	}
	for !l.refusedFor(begin, loadFull) { // whatever somebody gives back meanwhile
		full()
		time.Sleep(200 * time.Millisecond)
	}
	l.said(begin, "postgres", "nats", "relay", "storage")
}
