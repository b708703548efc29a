package operation_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
)

// happened is the n-th event of the operation, n seconds after noon.
func happened(n int, event any) events.Event {
	d := operation.Codec.Encode(event)
	return events.Event{
		Stream: events.NewStream(operation.Kind, id), Version: int64(n), Type: d.Type, Schema: d.Schema, Data: d.Data,
		Meta: events.Meta{Actor: "uid:0"}, At: time.Date(2026, 11, 22, 12, 0, n, 0, time.UTC), Position: events.Position{Tx: 7, Seq: int64(n)},
	}
}

// brief is what changes on the way: state, progress, error and the steps with theirs.
func brief(v operation.View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", v.State, v.Progress)
	if v.Error != nil {
		fmt.Fprintf(&b, " (%s)", v.Error.Code)
	}
	for _, s := range v.Steps {
		fmt.Fprintf(&b, ", %s %s", s.Name, s.State)
		if s.Error != nil {
			fmt.Fprintf(&b, " (%s)", s.Error.Code)
		}
	}
	return b.String()
}

type then struct {
	event any
	want  string
}

func after(path []then, more ...then) []then { return slices.Concat(path, more) }

func TestPaths(t *testing.T) {
	single := operation.Started{Node: node}
	first := []then{{requested, "queued 0"}, {plan, "running 0, disk 0 running, domain pending, start pending"}}
	second := after(first, then{operation.StepSucceeded{Step: "disk 0"}, "running 33, disk 0 succeeded, domain running, start pending"})
	third := after(second, then{operation.StepSucceeded{Step: "domain"}, "running 66, disk 0 succeeded, domain succeeded, start running"})
	for name, path := range map[string][]then{
		"rejected":  {first[0], {operation.Failed{Problem: noMemory}, "failed 0 (insufficient_resources)"}},
		"succeeded": {first[0], {single, "running 0"}, {operation.Succeeded{}, "succeeded 100"}},
		"failed":    {first[0], {single, "running 0"}, {operation.Failed{Problem: noMemory}, "failed 0 (insufficient_resources)"}},
		"process succeeded": after(third,
			then{operation.StepSucceeded{Step: "start"}, "running 66, disk 0 succeeded, domain succeeded, start succeeded"},
			then{operation.Succeeded{}, "succeeded 100, disk 0 succeeded, domain succeeded, start succeeded"}),
		"process failed at its first step": after(first,
			then{operation.StepFailed{Step: "disk 0", Problem: noMemory}, "running 0, disk 0 failed (insufficient_resources), domain pending, start pending"},
			then{operation.Failed{Problem: noMemory}, "failed 0 (insufficient_resources), disk 0 failed (insufficient_resources), domain pending, start pending"}),
		"process failed and taken back": after(second,
			then{operation.StepFailed{Step: "domain", Problem: noMemory}, "running 33, disk 0 succeeded, domain failed (insufficient_resources), start pending"},
			then{operation.StepUndone{Step: "disk 0"}, "running 33, disk 0 undone, domain failed (insufficient_resources), start pending"},
			then{operation.Failed{Problem: noMemory}, "failed 33 (insufficient_resources), disk 0 undone, domain failed (insufficient_resources), start pending"}),
		"process failed and not all taken back": after(second,
			then{operation.StepFailed{Step: "domain", Problem: noMemory}, "running 33, disk 0 succeeded, domain failed (insufficient_resources), start pending"},
			then{operation.StepUndone{Step: "disk 0", Problem: noMemory}, "running 33, disk 0 undone (insufficient_resources), domain failed (insufficient_resources), start pending"},
			then{operation.Failed{Problem: noMemory}, "failed 33 (insufficient_resources), disk 0 undone (insufficient_resources), domain failed (insufficient_resources), start pending"}),
		"process failed past the point of no return": after(third,
			then{operation.StepFailed{Step: "start", Problem: noMemory}, "running 66, disk 0 succeeded, domain succeeded, start failed (insufficient_resources)"},
			then{operation.Failed{Problem: noMemory}, "failed 66 (insufficient_resources), disk 0 succeeded, domain succeeded, start failed (insufficient_resources)"}),
		"canceled": after(first,
			then{operation.CancelRequested{}, "running 0, disk 0 undoing, domain pending, start pending"},
			then{operation.StepSucceeded{Step: "disk 0"}, "running 0, disk 0 succeeded, domain pending, start pending"},
			then{operation.StepUndone{Step: "disk 0"}, "running 0, disk 0 undone, domain pending, start pending"},
			then{operation.Canceled{}, "canceled 0, disk 0 undone, domain pending, start pending"}),
		"canceled while a step failed": after(second,
			then{operation.CancelRequested{}, "running 33, disk 0 succeeded, domain undoing, start pending"},
			then{operation.StepFailed{Step: "domain", Problem: noMemory}, "running 33, disk 0 succeeded, domain failed (insufficient_resources), start pending"},
			then{operation.StepUndone{Step: "disk 0"}, "running 33, disk 0 undone, domain failed (insufficient_resources), start pending"},
			then{operation.Failed{Problem: noMemory}, "failed 33 (insufficient_resources), disk 0 undone, domain failed (insufficient_resources), start pending"}),
		"canceled too late": after(second,
			then{operation.CancelRequested{}, "running 33, disk 0 succeeded, domain undoing, start pending"},
			then{operation.StepSucceeded{Step: "domain"}, "running 33, disk 0 succeeded, domain succeeded, start pending"},
			then{operation.StepSucceeded{Step: "start"}, "running 33, disk 0 succeeded, domain succeeded, start succeeded"},
			then{operation.Succeeded{}, "succeeded 100, disk 0 succeeded, domain succeeded, start succeeded"}),
	} {
		t.Run(name, func(t *testing.T) {
			var v operation.View
			for i, step := range path {
				before, e := doc(t, v), happened(i+1, step.event)
				next, err := operation.Apply(v, e)
				if err != nil {
					t.Fatal(err)
				}
				if doc(t, v) != before {
					t.Errorf("%s changed the view it was given", e.Type)
				}
				if got := brief(next); got != step.want {
					t.Errorf("after %s:\n%s\nwant\n%s", e.Type, got, step.want)
				}
				if next.Version != e.Version || next.Position != e.Position.String() {
					t.Errorf("after %s: version %d, position %s", e.Type, next.Version, next.Position)
				}
				if ended := i == len(path)-1; next.State.Ended() != ended || (next.EndedAt != nil) != ended || ended && !next.EndedAt.Equal(e.At) {
					t.Errorf("after %s: %s, ended at %v", e.Type, next.State, next.EndedAt)
				}
				v = next
			}
		})
	}
}

// TestView gives the whole view at its begin and at its end.
func TestView(t *testing.T) {
	const (
		first = `{"id":"01900000-0000-7000-8000-000000000004","type":"vm.create","state":`
		who   = `"actor":"uid:0","resource":"/api/vms/01900000-0000-7000-8000-000000000005","resource_id":"01900000-0000-7000-8000-000000000005",`
		where = `"node":"01900000-0000-7000-8000-000000000001",`
		// failure is the problem as RFC 9457 has it; the event has code and detail alone.
		failure = `{"type":"urn:horcrux:problem:insufficient_resources","title":"Not enough resources","status":409,"code":"insufficient_resources","detail":"no memory"}`
	)
	var v operation.View
	for i, c := range []then{
		{requested, first + `"queued","progress":0,` + who + `"node":null,"steps":[],"error":null,"position":"AAcB","created_at":"2026-11-22T12:00:01Z","started_at":null,"ended_at":null,"version":1}`},
		{operation.Started{Node: node, Steps: plan.Steps[:1]}, first + `"running","progress":0,` + who + where + `"steps":[{"name":"disk 0","state":"running","error":null}],"error":null,"position":"AAcC","created_at":"2026-11-22T12:00:01Z","started_at":"2026-11-22T12:00:02Z","ended_at":null,"version":2}`},
		{operation.StepFailed{Step: "disk 0", Problem: noMemory, Log: "what the driver said"}, first + `"running","progress":0,` + who + where + `"steps":[{"name":"disk 0","state":"failed","error":` + failure + `}],"error":null,"position":"AAcD","created_at":"2026-11-22T12:00:01Z","started_at":"2026-11-22T12:00:02Z","ended_at":null,"version":3}`},
		{operation.Failed{Problem: noMemory, Log: "what the driver said"}, first + `"failed","progress":0,` + who + where + `"steps":[{"name":"disk 0","state":"failed","error":` + failure + `}],"error":` + failure + `,"position":"AAcE","created_at":"2026-11-22T12:00:01Z","started_at":"2026-11-22T12:00:02Z","ended_at":"2026-11-22T12:00:04Z","version":4}`},
	} {
		var err error
		if v, err = operation.Apply(v, happened(i+1, c.event)); err != nil {
			t.Fatal(err)
		}
		if got := doc(t, v); got != c.want {
			t.Errorf("after %T:\n%s\nwant\n%s", c.event, got, c.want)
		}
	}
}

func TestStartedOnNoNode(t *testing.T) {
	v, err := operation.Apply(operation.View{}, happened(1, operation.Started{}))
	if err != nil || v.Node != nil {
		t.Errorf("node %v, %v", v.Node, err)
	}
}

func TestUnknownEvent(t *testing.T) {
	v, err := operation.Apply(operation.View{}, happened(1, requested))
	if err != nil {
		t.Fatal(err)
	}
	e := happened(2, operation.Succeeded{})
	e.Type = "operation.dreamt"
	if next, err := operation.Apply(v, e); !errors.Is(err, events.ErrUnknownType) || doc(t, next) != doc(t, v) {
		t.Errorf("got %+v, %v", next, err)
	}
}

func doc(t *testing.T, v operation.View) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
