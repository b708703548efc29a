package storage_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	poolwire "horcrux/pkg/events/pool"
	vmwire "horcrux/pkg/events/vm"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage"
	"horcrux/services/storage/backend"
	"horcrux/services/storage/backend/fake"
)

func TestPoolLocal(t *testing.T) {
	stream := func(h *host) events.Stream { return events.NewStream(poolwire.Kind, storage.LocalID(h.node)) }
	t.Run("is made at the first start and once", func(t *testing.T) {
		h := newHost(t, nil)
		h.stop()
		h.start()
		h.until("ready again", func() bool { return h.svc.Ready(t.Context()) == nil })
		evs := h.events(stream(h))
		if len(evs) != 1 {
			t.Fatalf("%d events, want one", len(evs))
		}
		view, _, err := poolwire.Resource.Apply(nil, evs[0])
		must(t, err)
		var v poolwire.View
		must(t, json.Unmarshal(view, &v))
		if v.Name != "local" || v.Type != "dir" || v.Path != h.pool() || v.Node != h.node || v.State != "active" || v.Options == nil {
			t.Errorf("pool %s", view)
		}
		if holder, err := h.store.Lookup(t.Context(), eventstore.Name{Scope: "pool", Value: "local"}); err != nil || holder != stream(h) {
			t.Errorf("the name belongs to %q, %v", holder, err)
		}
	})
	t.Run("is never made again", func(t *testing.T) {
		h := newHost(t, nil)
		h.stop()
		must(t, os.RemoveAll(h.pool()))
		h.start()
		h.until("not ready", func() bool {
			p := problem.From(h.svc.Ready(t.Context()))
			return p != nil && p.Code == problem.StorageUnavailable && strings.Contains(p.Detail, "log")
		})
		if _, err := os.Stat(h.pool()); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the directory is back: %v", err)
		}
	})
	t.Run("is followed where its directory moved", func(t *testing.T) {
		h := newHost(t, nil)
		h.stop()
		moved := h.base + "-moved"
		must(t, os.Rename(h.base, moved))
		t.Cleanup(func() { os.RemoveAll(moved) })
		h.base = moved
		h.start()
		h.until("ready again", func() bool { return h.svc.Ready(t.Context()) == nil })
		id := events.NewID()
		h.succeeds(h.create(id, h.data("data")))
		if list := h.stored(); len(list) != 1 || filepath.Dir(list[0].Path) != filepath.Join(moved, "volumes") {
			t.Errorf("stored %+v", list)
		}
	})
	t.Run("heals when its directory comes back", func(t *testing.T) {
		h := newHost(t, nil)
		must(t, os.Rename(h.pool(), h.pool()+"-away"))
		h.ended(h.create(events.NewID(), h.data("data"))) // refused, and a reason to look
		h.until("not ready", func() bool { return h.svc.Ready(t.Context()) != nil })
		must(t, os.Rename(h.pool()+"-away", h.pool()))
		h.until("ready", func() bool { return h.svc.Ready(t.Context()) == nil })
	})
}

func TestLifeOfAVolume(t *testing.T) {
	h := newHost(t, nil)
	id := events.NewID()
	h.succeeds(h.create(id, h.data("data")))
	list := h.stored()
	if len(list) != 1 || list[0].ID != id || list[0].SizeBytes != 1<<30 {
		t.Fatalf("stored %+v", list)
	}
	h.wantStory(id, "create_requested created")
	var created wire.Created
	must(t, json.Unmarshal(h.events(events.NewStream(wire.Kind, id))[1].Data, &created))
	if created != (wire.Created{Type: "file", Path: list[0].Path, Format: "raw"}) {
		t.Errorf("recorded %+v of %+v", created, list[0])
	}

	again := events.NewID()
	if v := h.ended(h.create(again, h.data("data"))); v.State != operation.StateFailed || v.Error.Code != problem.NameTaken {
		t.Errorf("the same name: %s, %+v", v.State, v.Error)
	}
	h.succeeds(h.delete(id))
	h.wantStory(id, "create_requested created delete_requested deleted")
	if list := h.stored(); len(list) != 0 {
		t.Errorf("still stored: %+v", list)
	}
	h.succeeds(h.create(events.NewID(), h.data("data"))) // the name is free
}

func TestRefusals(t *testing.T) {
	h := newHost(t, nil)
	img := filepath.Join(h.images(), "large.img")
	must(t, os.WriteFile(img, nil, 0o600))
	must(t, os.Truncate(img, 2<<30))
	secret := filepath.Join(h.base, "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	for what, c := range map[string]struct {
		change func(*wire.CreateData)
		code   problem.Code
		field  string
	}{
		"name":                     {func(d *wire.CreateData) { d.Name = "../data" }, problem.InvalidValue, "name"},
		"pool that does not exist": {func(d *wire.CreateData) { d.Pool = events.NewID() }, problem.InvalidValue, "pool"},
		"no size":                  {func(d *wire.CreateData) { d.SizeGB = 0 }, problem.InvalidValue, "size_gb"},
		"format":                   {func(d *wire.CreateData) { d.Format = "vmdk" }, problem.InvalidValue, "format"},
		"image outside":            {func(d *wire.CreateData) { d.Image = secret }, problem.InvalidValue, "image"},
		"image by a traversal":     {func(d *wire.CreateData) { d.Image = h.images() + "/../secret" }, problem.InvalidValue, "image"},
		"image that is missing":    {func(d *wire.CreateData) { d.Image = filepath.Join(h.images(), "none") }, problem.InvalidValue, "image"},
		"image larger than it":     {func(d *wire.CreateData) { d.Image = img }, problem.InvalidValue, "size_gb"},
		"no space to reserve":      {func(d *wire.CreateData) { d.Thin, d.SizeGB = false, 65536 }, problem.InsufficientResources, ""},
	} {
		t.Run(what, func(t *testing.T) {
			data := h.data("data")
			c.change(&data)
			h := h.in(t)
			id := events.NewID()
			v := h.ended(h.create(id, data))
			if v.State != operation.StateFailed || v.Error.Code != c.code {
				t.Fatalf("%s: %+v", v.State, v.Error)
			}
			if c.field != "" && (len(v.Error.Fields) != 1 || v.Error.Fields[0].Field != c.field) {
				t.Errorf("names %+v, want %s", v.Error.Fields, c.field)
			}
			if text, _ := json.Marshal(v.Error); strings.Contains(string(text), h.base) {
				t.Errorf("tells a path of the host: %s", text)
			}
			if story := h.story(id); story != "" {
				t.Errorf("the volume has a story: %s", story)
			}
		})
	}
	t.Run("unknown field", func(t *testing.T) {
		h := h.in(t)
		cmd := h.command("create", events.NewID(), h.data("data"))
		cmd.Data = append(cmd.Data[:len(cmd.Data)-1], `,"compress":true}`...)
		if v := h.ended(h.ask(cmd)); v.State != operation.StateFailed || v.Error.Code != problem.MalformedRequest {
			t.Errorf("%s: %+v", v.State, v.Error)
		}
	})
	if list := h.stored(); len(list) != 0 {
		t.Errorf("refused, and stored %+v", list)
	}
	h.succeeds(h.create(events.NewID(), h.data("data"))) // no name was kept
}

func TestOwner(t *testing.T) {
	h := newHost(t, &fake.World{})
	owner := h.machine()
	data := h.data("vm-disk-0")
	data.Owner = owner
	id := events.NewID()
	deadline := time.Now().Add(time.Minute)

	create := h.step("create", id, data, deadline)
	reply := h.reply(create)
	var made wire.Created
	must(t, json.Unmarshal(reply.Result, &made))
	if reply.Problem != nil || made.Path == "" || made.Format != "raw" {
		t.Fatalf("the process heard %+v", reply)
	}
	if v := h.ended(h.delete(id)); v.State != operation.StateFailed || v.Error.Code != problem.InUse {
		t.Errorf("delete by a user: %s, %+v", v.State, v.Error)
	}
	if r := h.reply(h.step("delete", id, wire.DeleteData{Owner: owner}, deadline)); r.Problem != nil {
		t.Errorf("delete by the owner: %+v", r.Problem)
	}
	if r := h.reply(h.step("delete", id, wire.DeleteData{Owner: owner}, deadline)); r.Problem != nil {
		t.Errorf("delete repeated by the owner: %+v", r.Problem)
	}
	h.wantStory(id, "create_requested created delete_requested deleted")

	kept := events.NewID()
	data.Name = "vm-disk-1"
	h.reply(h.step("create", kept, data, deadline))
	if r := h.reply(h.step("release", kept, wire.DeleteData{Owner: owner}, deadline)); r.Problem != nil {
		t.Errorf("release: %+v", r.Problem)
	}
	h.succeeds(h.delete(kept))
	h.wantStory(kept, "create_requested created released delete_requested deleted")
}

// machine records a virtual machine that is being created.
func (h *host) machine() events.Stream {
	h.Helper()
	vm := events.NewStream(vmwire.Kind, events.NewID())
	h.record(vm, vmwire.CreateRequested{Spec: vmwire.Spec{Name: "web-" + vm.ID().String()}})
	return vm
}

// record appends events to a virtual machine.
func (h *host) record(vm events.Stream, evs ...any) {
	h.Helper()
	histories, err := h.store.Load(h.Context(), vm)
	must(h.T, err)
	var drafts []events.Draft
	for _, ev := range evs {
		drafts = append(drafts, vmwire.Codec.Encode(ev))
	}
	_, err = h.store.Append(h.Context(), eventstore.Append{
		Streams: []eventstore.StreamAppend{{Stream: vm, Head: histories[0].Head, Events: drafts}},
	})
	must(h.T, err)
}

// A process that failed to take back its volumes leaves them to an owner that is no more.
func TestOrphan(t *testing.T) {
	h := newHost(t, &fake.World{})
	lives, failed, deleted := h.machine(), h.machine(), h.machine()
	h.record(lives, vmwire.Created{}, vmwire.DeleteRequested{}, vmwire.DeleteFailed{State: vmwire.StateStopped})
	h.record(failed, vmwire.CreateFailed{})
	h.record(deleted, vmwire.Created{}, vmwire.DeleteRequested{}, vmwire.Deleted{})
	for what, c := range map[string]struct {
		owner events.Stream
		code  problem.Code
	}{
		"whose owner lives":                     {lives, problem.InUse},
		"whose owner's create was taken back":   {failed, ""},
		"whose owner was deleted":               {deleted, ""},
		"whose owner was never recorded":        {events.NewStream(vmwire.Kind, events.NewID()), ""},
		"whose owner is of a kind unknown here": {events.NewStream(poolwire.Kind, storage.LocalID(h.node)), problem.InUse},
		"whose owner is unknown altogether":     {events.NewStream("ct", events.NewID()), ""},
	} {
		t.Run(what, func(t *testing.T) {
			h := h.in(t)
			data, id := h.data("disk-"+c.owner.ID().String()), events.NewID()
			data.Owner = c.owner
			if r := h.reply(h.step("create", id, data, time.Now().Add(time.Minute))); r.Problem != nil {
				t.Fatalf("create: %+v", r.Problem)
			}
			switch v := h.ended(h.delete(id)); {
			case c.code == "" && v.State != operation.StateSucceeded, c.code != "" && (v.Error == nil || v.Error.Code != c.code):
				t.Errorf("delete by a user: %s, %+v", v.State, v.Error)
			case c.code == "":
				h.wantStory(id, "create_requested created delete_requested deleted")
			}
		})
	}
}

// stepEnd is what a process hears of its step.
type stepEnd struct {
	Step    string           `json:"step"`
	Result  json.RawMessage  `json:"result"`
	Problem *problem.Problem `json:"problem"`
}

// reply waits for what the process that sent a step hears of it.
func (h *host) reply(to events.Command) (end stepEnd) {
	h.Helper()
	h.until("the process hears of "+to.Type, func() bool {
		for _, c := range h.bus.toOthers() {
			if c.Meta.Causation == to.ID && c.Target == to.Meta.Operation && c.To == *to.ReplyTo {
				must(h.T, json.Unmarshal(c.Data, &end))
				return end.Step == to.Step
			}
		}
		return false
	})
	return end
}

func TestPoolThatIsAway(t *testing.T) {
	h := newHost(t, nil)
	there := events.NewID()
	h.succeeds(h.create(there, h.data("there")))
	must(t, os.Rename(h.pool(), h.pool()+"-away"))

	refused := events.NewID()
	if v := h.ended(h.create(refused, h.data("refused"))); v.State != operation.StateFailed || v.Error.Code != problem.StorageUnavailable {
		t.Errorf("create: %s, %+v", v.State, v.Error)
	}
	if v := h.ended(h.delete(there)); v.State != operation.StateFailed || v.Error.Code != problem.StorageUnavailable {
		t.Errorf("delete: %s, %+v", v.State, v.Error)
	}
	waits := events.NewID()
	step := h.step("create", waits, h.data("waits"), time.Now().Add(10*time.Minute))
	h.wantStory(waits, "create_requested")

	must(t, os.Rename(h.pool()+"-away", h.pool()))
	if r := h.reply(step); r.Problem != nil {
		t.Errorf("the step that waited: %+v", r.Problem)
	}
	h.wantStory(waits, "create_requested created")
	h.wantStory(there, "create_requested created")
	if story := h.story(refused); story != "" {
		t.Errorf("the refused volume has a story: %s", story)
	}
}

func TestEffectThatFails(t *testing.T) {
	for what, c := range map[string]struct {
		err  error
		code problem.Code
	}{
		"full":       {backend.ErrExhausted, problem.InsufficientResources},
		"permission": {backend.ErrPermission, problem.StorageUnavailable},
		"no image":   {backend.ErrNotFound, problem.InvalidValue},
		"refused":    {backend.ErrInvalid, problem.InvalidValue},
		"other":      {backend.ErrAlreadyExists, problem.EffectFailed},
	} {
		t.Run(what, func(t *testing.T) {
			h := newHost(t, &fake.World{Before: func(_ context.Context, call string, _ uuid.UUID) error {
				if call == fake.Create {
					return errors.Join(c.err, errors.New("/dev/sda1 says: EFOO"))
				}
				return nil
			}})
			id := events.NewID()
			v := h.ended(h.create(id, h.data("data")))
			if v.State != operation.StateFailed || v.Error.Code != c.code {
				t.Errorf("%s: %+v", v.State, v.Error)
			}
			if text, _ := json.Marshal(v.Error); strings.Contains(string(text), "EFOO") {
				t.Errorf("tells the driver's words: %s", text)
			}
			h.wantStory(id, "create_requested create_failed")
			if holder, err := h.store.Lookup(t.Context(), eventstore.Name{Scope: wire.NameScope(storage.LocalID(h.node)), Value: "data"}); err != nil || holder != "" {
				t.Errorf("the name belongs to %q, %v", holder, err)
			}
		})
	}
}
