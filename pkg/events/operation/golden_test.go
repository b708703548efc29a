package operation_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/problem"
)

var (
	node     = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	id       = uuid.MustParse("01900000-0000-7000-8000-000000000004")
	machine  = uuid.MustParse("01900000-0000-7000-8000-000000000005")
	disk     = uuid.MustParse("01900000-0000-5000-8000-000000000006")
	command  = uuid.MustParse("01900000-0000-5000-8000-000000000003")
	noMemory = problem.New(problem.InsufficientResources, "no memory")
)

var (
	requested = operation.Requested{
		Type: "vm.create", Command: command, Resource: events.NewStream("vm", machine), Collection: "vms",
		Data: json.RawMessage(`{"start":true}`), Deadline: time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC),
	}
	// plan has a step with nothing to take back, and one that is the point of no return.
	plan = operation.Started{Node: node, Steps: []operation.StepPlan{
		{
			Name: "disk 0",
			Do:   operation.Call{To: events.Address{Domain: "storage", Node: node.String()}, Type: "volume.create", Target: disk, Data: json.RawMessage(`{"size_gb":1}`)},
			Undo: &operation.Call{To: events.Address{Domain: "storage", Node: node.String()}, Type: "volume.delete", Target: disk},
		},
		{Name: "domain", Do: operation.Call{To: events.Address{Domain: "compute", Node: node.String()}, Type: "vm.define", Target: machine}, NoReturn: true},
		{Name: "start", Do: operation.Call{To: events.Address{Domain: "compute", Node: node.String()}, Type: "vm.start", Target: machine}},
	}}
)

func TestGolden(t *testing.T) {
	const (
		storage     = `{"domain":"storage","node":"01900000-0000-7000-8000-000000000001"}`
		compute     = `{"domain":"compute","node":"01900000-0000-7000-8000-000000000001"}`
		problemJSON = `{"code":"insufficient_resources","detail":"no memory"}`
	)
	eventstest.Golden(t, operation.Codec, []eventstest.Case{
		{
			Type:  "operation.requested",
			Event: requested,
			Data:  `{"type":"vm.create","command":"01900000-0000-5000-8000-000000000003","resource":"vm/01900000-0000-7000-8000-000000000005","collection":"vms","data":{"start":true},"deadline":"2026-11-22T10:00:00.123456Z"}`,
		},
		{Type: "operation.started", Event: operation.Started{Node: node}, Data: `{"node":"01900000-0000-7000-8000-000000000001"}`},
		{
			Type:  "operation.started",
			Event: plan,
			Data: `{"node":"01900000-0000-7000-8000-000000000001","steps":[` +
				`{"name":"disk 0","do":{"to":` + storage + `,"type":"volume.create","target":"01900000-0000-5000-8000-000000000006","data":{"size_gb":1}},"undo":{"to":` + storage + `,"type":"volume.delete","target":"01900000-0000-5000-8000-000000000006"}},` +
				`{"name":"domain","do":{"to":` + compute + `,"type":"vm.define","target":"01900000-0000-7000-8000-000000000005"},"no_return":true},` +
				`{"name":"start","do":{"to":` + compute + `,"type":"vm.start","target":"01900000-0000-7000-8000-000000000005"}}]}`,
		},
		{Type: "operation.step_succeeded", Event: operation.StepSucceeded{Step: "domain"}, Data: `{"step":"domain"}`},
		{Type: "operation.step_succeeded", Event: operation.StepSucceeded{Step: "disk 0", Result: json.RawMessage(`{"path":"/v"}`)}, Data: `{"step":"disk 0","result":{"path":"/v"}}`},
		{Type: "operation.step_failed", Event: operation.StepFailed{Step: "start", Problem: noMemory, Log: "cannot allocate"}, Data: `{"step":"start","problem":` + problemJSON + `,"log":"cannot allocate"}`},
		{Type: "operation.step_undone", Event: operation.StepUndone{Step: "disk 0"}, Data: `{"step":"disk 0"}`},
		{Type: "operation.step_undone", Event: operation.StepUndone{Step: "disk 0", Problem: noMemory, Log: "busy"}, Data: `{"step":"disk 0","problem":` + problemJSON + `,"log":"busy"}`},
		{Type: "operation.succeeded", Event: operation.Succeeded{}, Data: `{}`},
		{Type: "operation.failed", Event: operation.Failed{Problem: noMemory, Log: "cannot allocate"}, Data: `{"problem":` + problemJSON + `,"log":"cannot allocate"}`},
		{Type: "operation.cancel_requested", Event: operation.CancelRequested{}, Data: `{}`},
		{Type: "operation.canceled", Event: operation.Canceled{}, Data: `{}`},
	})
}
