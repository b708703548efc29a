package volume_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/problem"
)

var (
	node   = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	poolID = uuid.MustParse("01900000-0000-7000-8000-000000000002")
	at     = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
)

func intent(kind string) events.Intent {
	return events.Intent{
		Type: kind, Command: uuid.MustParse("01900000-0000-5000-8000-000000000003"),
		Operation: uuid.MustParse("01900000-0000-7000-8000-000000000004"), Step: "disk 0",
		ReplyTo: &events.Address{Domain: "compute", Node: node.String()}, Deadline: at,
	}
}

const (
	intentJSON  = `"command":"01900000-0000-5000-8000-000000000003","operation":"01900000-0000-7000-8000-000000000004","step":"disk 0","reply_to":{"domain":"compute","node":"01900000-0000-7000-8000-000000000001"},"deadline":"2026-11-22T10:00:00Z"`
	problemJSON = `{"problem":{"code":"insufficient_resources","detail":"full"}}`
)

var golden = []eventstest.Case{
	{
		Type: "volume.create_requested",
		Event: volume.CreateRequested{
			Intent: intent("volume.create"), PoolPath: "/var/lib/horcrux/volumes", Node: node,
			CreateData: volume.CreateData{
				Pool: poolID, Name: "data-1", SizeGB: 10, Format: "qcow2", Thin: true,
				Owner: "vm/01900000-0000-7000-8000-000000000005", Image: "/images/debian.qcow2",
			},
		},
		Data: `{"type":"volume.create",` + intentJSON + `,"pool":"01900000-0000-7000-8000-000000000002","name":"data-1","size_gb":10,"format":"qcow2","thin":true,"owner":"vm/01900000-0000-7000-8000-000000000005","image":"/images/debian.qcow2","pool_path":"/var/lib/horcrux/volumes","node":"01900000-0000-7000-8000-000000000001"}`,
	},
	{
		Type:  "volume.created",
		Event: volume.Created{Type: "file", Path: "/var/lib/horcrux/volumes/v.qcow2", Format: "qcow2"},
		Data:  `{"type":"file","path":"/var/lib/horcrux/volumes/v.qcow2","format":"qcow2"}`,
	},
	{Type: "volume.create_failed", Event: volume.CreateFailed{Problem: problem.New(problem.InsufficientResources, "full")}, Data: problemJSON},
	{Type: "volume.delete_requested", Event: volume.DeleteRequested{Intent: intent("volume.delete")}, Data: `{"type":"volume.delete",` + intentJSON + `}`},
	{Type: "volume.delete_failed", Event: volume.DeleteFailed{Problem: problem.New(problem.InsufficientResources, "full")}, Data: problemJSON},
	{Type: "volume.deleted", Event: volume.Deleted{}, Data: `{}`},
	{Type: "volume.resize_requested", Event: volume.ResizeRequested{Intent: intent("volume.resize"), SizeGB: 20}, Data: `{"type":"volume.resize",` + intentJSON + `,"size_gb":20}`},
	{Type: "volume.resized", Event: volume.Resized{SizeGB: 20}, Data: `{"size_gb":20}`},
	{Type: "volume.resize_failed", Event: volume.ResizeFailed{Problem: problem.New(problem.InsufficientResources, "full")}, Data: problemJSON},
	{Type: "volume.released", Event: volume.Released{}, Data: `{}`},
}

func TestGolden(t *testing.T) { eventstest.Golden(t, volume.Codec, golden) }

func TestView(t *testing.T) {
	id := events.NewID()
	var doc json.RawMessage
	for i, c := range []struct {
		event   any
		deleted bool
		want    func(volume.View) bool
	}{
		{golden[0].Event, false, func(v volume.View) bool {
			return v.ID == id && v.Name == "data-1" && v.State == "creating" && v.Path == nil && v.SizeGB == 10 && v.Owner != ""
		}},
		{golden[1].Event, false, func(v volume.View) bool {
			return v.State == "available" && *v.Path == "/var/lib/horcrux/volumes/v.qcow2"
		}},
		{volume.DeleteRequested{}, false, func(v volume.View) bool { return v.State == "deleting" }},
		{volume.DeleteFailed{}, false, func(v volume.View) bool { return v.State == "available" }},
		{volume.Released{}, false, func(v volume.View) bool { return v.Owner == "" }},
		{volume.Deleted{}, true, func(v volume.View) bool { return v.Version == 6 }},
	} {
		d := volume.Codec.Encode(c.event)
		next, deleted, err := volume.Resource.Apply(doc, events.Event{
			Stream: events.NewStream(volume.Kind, id), Version: int64(i + 1), Type: d.Type, Schema: d.Schema, Data: d.Data, At: at,
		})
		if err != nil || deleted != c.deleted {
			t.Fatalf("%s: deleted %t, %v", d.Type, deleted, err)
		}
		var v volume.View
		if err := json.Unmarshal(next, &v); err != nil || !c.want(v) {
			t.Errorf("after %s: %s, %v", d.Type, next, err)
		}
		doc = next
	}
}

func TestCreateFailedEnds(t *testing.T) {
	d := volume.Codec.Encode(volume.CreateFailed{})
	_, deleted, err := volume.Resource.Apply(nil, events.Event{Type: d.Type, Schema: d.Schema, Data: d.Data})
	if err != nil || !deleted {
		t.Errorf("deleted %t, %v", deleted, err)
	}
}
