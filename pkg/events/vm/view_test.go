package vm_test

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
)

var machine = events.NewStream(vm.Kind, uuid.MustParse("01900000-0000-7000-8000-000000000005"))

// happened is the n-th event of the machine, n seconds after noon.
func happened(n int, event any) events.Event {
	d := vm.Codec.Encode(event)
	return events.Event{
		Stream: machine, Version: int64(n), Type: d.Type, Schema: d.Schema, Data: d.Data,
		At: time.Date(2026, 11, 22, 12, 0, n, 0, time.UTC),
	}
}

const created = `{"id":"01900000-0000-7000-8000-000000000005","name":"web-1","version":1,"created_at":"2026-11-22T12:00:01Z","updated_at":"2026-11-22T12:00:01Z","backend":"qemu","node":"01900000-0000-7000-8000-000000000001","description":"front end","tags":["web"],` + hardwareJSON + `,"cloud_init":null,"autostart":true,"on_drift":"record","adopted":false,"transient":false,"accelerator":null,"pending":{},"snapshots":[],"snapshot":null,"state":"creating","native_id":null,"ha":null,"observed_at":null}`

// TestLife folds a whole life. The first view is given in full; of each later one what changed, besides version and
// updated_at, which follow from the event.
func TestLife(t *testing.T) {
	var doc json.RawMessage
	for i, c := range []struct {
		event   any
		changed string
		deleted bool
	}{
		{event: vm.CreateRequested{Spec: spec, Node: node, Operation: op}},
		{event: vm.DefineRequested{Intent: intent("vm.define")}, changed: `{}`},
		{event: vm.DefineFailed{Problem: noMemory}, changed: `{}`},
		{event: vm.DefineRequested{Intent: intent("vm.define")}, changed: `{}`},
		{event: vm.Created{NativeID: "n-1", Accelerator: "tcg"}, changed: `{"accelerator":"tcg","native_id":"n-1","observed_at":"2026-11-22T12:00:05Z","state":"stopped"}`},
		{event: vm.StartRequested{Intent: intent("vm.start")}, changed: `{"state":"starting"}`},
		{event: vm.StartFailed{Problem: noMemory, State: vm.StateStopped}, changed: `{"observed_at":"2026-11-22T12:00:07Z","state":"stopped"}`},
		{event: vm.StartRequested{Intent: intent("vm.start")}, changed: `{"state":"starting"}`},
		{event: vm.Started{}, changed: `{"observed_at":"2026-11-22T12:00:09Z","state":"running"}`},
		{event: vm.Paused{Cause: "ioerror"}, changed: `{"observed_at":"2026-11-22T12:00:10Z","state":"paused"}`},
		{event: vm.Resumed{Cause: "resumed"}, changed: `{"observed_at":"2026-11-22T12:00:11Z","state":"running"}`},
		{event: vm.UpdateRequested{Intent: intent("vm.update"), Change: change}, changed: `{}`},
		{event: vm.UpdateFailed{Problem: noMemory}, changed: `{}`},
		{event: vm.Updated{Change: change}, changed: `{"description":"front","pending":{"cpus":4},"tags":["web","prod"]}`},
		{event: vm.Updated{Change: vm.Change{Changed: vm.Fields{"autostart": raw(`false`)}, Pending: change.Pending}}, changed: `{"autostart":false}`},
		{event: vm.Updated{Change: vm.Change{Changed: vm.Fields{"tags": raw(`[]`)}, Pending: vm.Fields{"cpus": raw(`3`), "machine": raw(`"pc"`)}}}, changed: `{"pending":{"cpus":3,"machine":"pc"},"tags":[]}`},
		{event: vm.StopRequested{Intent: intent("vm.shutdown")}, changed: `{"state":"stopping"}`},
		{event: vm.StopFailed{Problem: noMemory, State: vm.StateRunning}, changed: `{"observed_at":"2026-11-22T12:00:18Z","state":"running"}`},
		{event: vm.StopRequested{Intent: intent("vm.stop"), Force: true}, changed: `{"state":"stopping"}`},
		{event: vm.Stopped{}, changed: `{"cpus":3,"machine":"pc","observed_at":"2026-11-22T12:00:20Z","pending":{},"state":"stopped"}`},
		{event: vm.DeleteRequested{Operation: op}, changed: `{"state":"deleting"}`},
		{event: vm.RemoveRequested{Intent: intent("vm.remove")}, changed: `{}`},
		{event: vm.RemoveFailed{Problem: noMemory, State: vm.StateStopped}, changed: `{"observed_at":"2026-11-22T12:00:23Z"}`},
		{event: vm.DeleteFailed{Problem: noMemory, State: vm.StateStopped}, changed: `{"observed_at":"2026-11-22T12:00:24Z","state":"stopped"}`},
		{event: vm.Lost{Cause: "undefined"}, changed: `{"observed_at":"2026-11-22T12:00:25Z","state":"error"}`},
		{event: vm.DeleteRequested{Operation: op}, changed: `{"state":"deleting"}`},
		{event: vm.RemoveRequested{Intent: intent("vm.remove")}, changed: `{}`},
		{event: vm.Removed{}, changed: `{}`},
		{event: vm.Deleted{}, changed: `{}`, deleted: true},
	} {
		e := happened(i+1, c.event)
		next, deleted, err := vm.Resource.Apply(doc, e)
		if err != nil {
			t.Fatalf("%d %s: %v", e.Version, e.Type, err)
		}
		if deleted != c.deleted {
			t.Errorf("%d %s: deleted %t", e.Version, e.Type, deleted)
		}
		if doc == nil {
			if string(next) != created {
				t.Errorf("%s gives\n%s\nwant\n%s", e.Type, next, created)
			}
		} else if got := diff(t, doc, next, e); got != c.changed {
			t.Errorf("%d %s changes %s, want %s", e.Version, e.Type, got, c.changed)
		}
		doc = next
	}
}

// diff returns the fields of next that are not as in doc, after it has seen to version and updated_at.
func diff(t *testing.T, doc, next json.RawMessage, e events.Event) string {
	t.Helper()
	var before, after map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(doc, &before), json.Unmarshal(next, &after)); err != nil {
		t.Fatal(err)
	}
	if string(after["version"]) != strconv.FormatInt(e.Version, 10) || string(after["updated_at"]) != strconv.Quote(e.At.Format(time.RFC3339)) {
		t.Errorf("%d %s: version %s, updated_at %s", e.Version, e.Type, after["version"], after["updated_at"])
	}
	if !slices.Equal(slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after))) {
		t.Errorf("%d %s: other fields than before: %s", e.Version, e.Type, next)
	}
	maps.DeleteFunc(after, func(field string, value json.RawMessage) bool {
		return field == "version" || field == "updated_at" || string(value) == string(before[field])
	})
	text, err := json.Marshal(after)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCreateFailedEnds(t *testing.T) {
	next, deleted, err := vm.Resource.Apply(json.RawMessage(created), happened(2, vm.CreateFailed{Problem: noMemory}))
	if err != nil || !deleted {
		t.Fatalf("deleted %t, %v", deleted, err)
	}
	if got, want := diff(t, json.RawMessage(created), next, happened(2, vm.CreateFailed{})), `{"state":"error"}`; got != want {
		t.Errorf("changes %s, want %s", got, want)
	}
}

func TestUnknownEvent(t *testing.T) {
	e := happened(2, vm.Started{})
	e.Type = "vm.levitated"
	if next, _, err := vm.Resource.Apply(json.RawMessage(created), e); !errors.Is(err, events.ErrUnknownType) || next != nil {
		t.Errorf("got %s, %v", next, err)
	}
}

func TestRevise(t *testing.T) {
	now := vm.View{
		Description: "a", Tags: []string{"x"}, Autostart: true, CPUs: 1, State: vm.StateRunning, Pending: vm.Fields{"memory_mb": raw(`64`)},
		Disks:    []vm.Disk{{Name: "disk0", Cache: "none"}, {Name: "disk1"}},
		Networks: []vm.NIC{{Name: "nic0", Link: "up", MTU: new(1400)}},
		VNC:      vm.VNC{Enabled: true, Password: &secret},
	}
	for _, c := range []struct {
		name   string
		change func(*vm.View)
		want   string // data of the update; "" for none
	}{
		{"nothing to do", func(*vm.View) {}, ""},
		{"what no update can change", func(v *vm.View) { v.State, v.Name = vm.StateStopped, "b" }, ""},
		{"a value", func(v *vm.View) { v.CPUs = 2 }, `{"cpus":2}`},
		{"what is pending", func(v *vm.View) { v.Pending = nil }, `{"memory_mb":0}`},
		{"a password", func(v *vm.View) { v.VNC.Password = nil }, `{"vnc":{"enabled":true,"password_ref":"00000000-0000-0000-0000-000000000000"}}`},
		{"devices", func(v *vm.View) {
			v.Disks = []vm.Disk{{Name: "disk0", Cache: "writeback", BootOrder: new(1)}}
			v.Networks = []vm.NIC{{Name: "nic0", Link: "down"}, {Name: "nic1"}}
		}, `{"disks":[{"name":"disk0","boot_order":1,"cache":"writeback"}],"networks":[{"name":"nic0","mtu":0,"link":"down"}]}`},
		{"description", func(v *vm.View) { v.Description = "" }, `{"description":""}`},
		{"tags", func(v *vm.View) { v.Tags = []string{"y", "x"} }, `{"tags":["y","x"]}`},
		{"no tags", func(v *vm.View) { v.Tags = []string{} }, `{"tags":[]}`},
		{"tags never given", func(v *vm.View) { v.Tags = nil }, `{"tags":[]}`},
		{"autostart", func(v *vm.View) { v.Autostart = false }, `{"autostart":false}`},
		{"all", func(v *vm.View) { v.Description, v.Tags, v.Autostart = "b", []string{"y"}, false }, `{"description":"b","tags":["y"],"autostart":false}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			then := now
			c.change(&then)
			r, err := vm.Resource.Revise(text(t, now), text(t, then))
			if err != nil || (r == nil) != (c.want == "") {
				t.Fatalf("got %+v, %v", r, err)
			}
			if r != nil && (r.Type != "vm.update" || string(r.Data) != c.want) {
				t.Errorf("%s %s, want %s", r.Type, r.Data, c.want)
			}
		})
	}
	t.Run("not a view", func(t *testing.T) {
		for _, docs := range [][2]json.RawMessage{{nil, text(t, now)}, {text(t, now), json.RawMessage(`[]`)}} {
			if r, err := vm.Resource.Revise(docs[0], docs[1]); err == nil {
				t.Errorf("revises %q to %q by %+v", docs[0], docs[1], r)
			}
		}
	})
}

// TestRevisionLeadsBack: whatever the views, the update that a revision asks for gives the target's configuration, and
// then nothing is left to revise.
func TestRevisionLeadsBack(t *testing.T) {
	views := rapid.Custom(func(t *rapid.T) vm.View {
		return vm.View{
			Description: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "description"),
			Tags:        rapid.SampledFrom([][]string{nil, {}, {"x"}, {"y"}, {"x", "y"}, {"y", "x"}}).Draw(t, "tags"),
			Autostart:   rapid.Bool().Draw(t, "autostart"),
			State:       rapid.SampledFrom([]vm.State{vm.StateRunning, vm.StateStopped}).Draw(t, "state"),
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		now, then := views.Draw(t, "now"), views.Draw(t, "then")
		r, err := vm.Resource.Revise(text(t, now), text(t, then))
		if err != nil {
			t.Fatal(err)
		}
		revised := now
		if r != nil {
			changed := vm.Fields{}
			if err := json.Unmarshal(r.Data, &changed); err != nil { // of these three the update is the fields
				t.Fatal(err)
			}
			doc, _, err := vm.Resource.Apply(text(t, now), happened(2, vm.Updated{Change: vm.Change{Changed: changed}}))
			if err != nil {
				t.Fatal(err)
			}
			revised = vm.View{}
			if err := json.Unmarshal(doc, &revised); err != nil {
				t.Fatal(err)
			}
		}
		if revised.Description != then.Description || !slices.Equal(revised.Tags, then.Tags) || revised.Autostart != then.Autostart || revised.State != now.State {
			t.Fatalf("%+v revised to %+v is %+v", now, then, revised)
		}
		if again, err := vm.Resource.Revise(text(t, revised), text(t, then)); again != nil || err != nil {
			t.Fatalf("left to revise: %+v, %v", again, err)
		}
	})
}

func text(t interface{ Fatal(...any) }, v vm.View) json.RawMessage {
	doc, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}
