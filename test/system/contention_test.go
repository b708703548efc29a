package system_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events/operation"
	"horcrux/pkg/openapi"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor/accel/initrd"
	"horcrux/test/instance"
)

// TestContention lets several clients want the same of one machine at the same moment, and asks a guest to shut down
// that cannot hear it yet.
func TestContention(t *testing.T) {
	i := qemuInstance(t)
	i.Start()
	made := i.Must("POST", "/api/vms", small("one", nil))
	i.Run(t, "of two changes under one ETag the second is refused", func(t *testing.T) {
		for round := range 10 {
			tag := i.Do("GET", "/api/vms/one", nil).Header.Get("ETag")
			answers := together(2, func(client int) (instance.Answer, error) {
				text := fmt.Sprintf("round %d, client %d", round, client)
				return i.Try("PATCH", "/api/vms/one?wait=60", map[string]any{"description": text}, "If-Match", tag)
			})
			won := slices.IndexFunc(answers, func(a outcome) bool { return a.state() == operation.StateSucceeded })
			if won < 0 {
				t.Fatalf("nobody won: %s, %s", answers[0], answers[1])
			}
			if lost := answers[1-won]; lost.refusal(http.StatusPreconditionFailed).Code != problem.VersionConflict {
				t.Fatalf("round %d: %s and %s", round, answers[won], lost)
			}
			var v openapi.VM
			i.Get("/api/vms/one", &v)
			want := fmt.Sprintf("round %d, client %d", round, won)
			if said := virsh(t, i, "desc", "one"); v.Description != want || said != want {
				t.Fatalf("it is described as %q, in the hypervisor as %q; want %q", v.Description, said, want)
			}
		}
	})
	i.Run(t, "a hundred starts at once have one effect", func(t *testing.T) {
		seen := watchDomains(t, i)
		answers := together(100, func(int) (instance.Answer, error) { return i.Try("POST", "/api/vms/one/start?wait=60", nil) })
		started := ""
		for _, a := range answers {
			if a.state() != operation.StateSucceeded {
				continue
			}
			if started != "" {
				t.Errorf("two have succeeded: %s and %s", started, a)
			}
			started = a.view().ID.String()
		}
		for _, a := range answers {
			if a.state() == operation.StateSucceeded {
				continue
			}
			// It runs already, or somebody else starts it.
			if p := a.refusal(http.StatusConflict); p.Code != problem.InvalidState ||
				p.Operation != started && !strings.Contains(p.Detail, "running") {
				t.Errorf("want a conflict with %s: %s", started, a)
			}
		}
		if started == "" {
			t.Error("nobody started it")
		}
		instance.Eventually(t, heal, "libvirt tells of the start", func() bool { return seen.of(made.ResourceID.String()).started > 0 })
		if e := seen.of(made.ResourceID.String()); e.started != 1 || e.stopped != 0 {
			t.Errorf("libvirt tells of %+v", e)
		}
		settled(t, i)
	})
	i.Run(t, "a shutdown that the booting guest does not hear is asked for again", func(t *testing.T) {
		kernel, image := slowGuestFiles(t, i, initrd.Obey, 5*time.Second)
		i.Must("POST", "/api/vms", small("slow", map[string]any{
			"memory_mb": 128, "start": true, "boot": map[string]any{"kernel": kernel, "initrd": image, "cmdline": "console=ttyS0"},
		}))
		var op operation.View
		id := accepted(i, "POST", "/api/vms/slow/shutdown", map[string]any{"timeout_s": 290})
		if i.Get("/api/operations/"+id.String()+"?wait=300", &op); op.State != operation.StateSucceeded {
			t.Errorf("operation: %s %+v", op.State, op.Error)
		}
		if state := virsh(t, i, "domstate", "--reason", "slow"); state != "shut off (shutdown)" {
			t.Errorf("the domain is %s", state)
		}
	})
}

// outcome is an answer, or why there is none.
type outcome struct {
	instance.Answer
	err error
}

// together makes n calls at once.
func together(n int, call func(client int) (instance.Answer, error)) []outcome {
	answers, begin, done := make([]outcome, n), make(chan struct{}), make(chan struct{})
	for client := range n {
		go func() { // ends with the answer, which is waited for
			<-begin
			answers[client].Answer, answers[client].err = call(client)
			done <- struct{}{}
		}()
	}
	close(begin)
	for range n {
		<-done
	}
	return answers
}

func (a outcome) String() string {
	if a.err != nil {
		return a.err.Error()
	}
	return fmt.Sprintf("%d %s", a.StatusCode, a.Bytes)
}

func (a outcome) view() (v operation.View) {
	if a.err != nil || a.StatusCode >= http.StatusBadRequest || json.Unmarshal(a.Bytes, &v) != nil {
		return operation.View{}
	}
	return v
}

func (a outcome) state() operation.State { return a.view().State }

// refusal is the problem of an answer with a status, or of an operation that was decided too late for one: after 2 s a
// call is accepted, and its operation fails.
func (a outcome) refusal(status int) (p problem.Problem) {
	if op := a.view(); op.State == operation.StateFailed {
		return op.Error.Problem
	}
	if a.err != nil || a.StatusCode != status || json.Unmarshal(a.Bytes, &p) != nil {
		return problem.Problem{}
	}
	return p
}
