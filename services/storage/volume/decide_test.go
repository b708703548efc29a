package volume_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/storage/volume"
)

var (
	node   = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	poolID = uuid.MustParse("01900000-0000-7000-8000-000000000002")
	opA    = uuid.MustParse("01900000-0000-7000-8000-00000000000a")
	opB    = uuid.MustParse("01900000-0000-7000-8000-00000000000b")
	vm1    = events.Stream("vm/01900000-0000-7000-8000-000000000011")
	vm2    = events.Stream("vm/01900000-0000-7000-8000-000000000012")
	failed = volume.Failed{Problem: problem.New(problem.EffectFailed, "no")}
	made   = volume.Made{Created: wire.Created{Type: "file", Path: "/pool/v.raw", Format: "raw"}}
)

func intent(kind string, op uuid.UUID) events.Intent {
	return events.Intent{Type: kind, Command: events.DerivedID(op, kind), Operation: op, Deadline: time.Unix(1000, 0).UTC()}
}

func create(op uuid.UUID, owner events.Stream) volume.Create {
	return volume.Create{
		Intent:   intent("volume.create", op),
		PoolPath: "/pool", Node: node,
		CreateData: wire.CreateData{Pool: poolID, Name: "data-1", SizeGB: 1, Format: "raw", Thin: true, Owner: owner},
	}
}

func del(op uuid.UUID, owner events.Stream) volume.Delete {
	return volume.Delete{Intent: intent("volume.delete", op), DeleteData: wire.DeleteData{Owner: owner}}
}

// orphaned is the delete by a user for whom an owner was found to be no more.
func orphaned(op uuid.UUID, ended events.Stream) volume.Delete {
	d := del(op, "")
	d.Ended = ended
	return d
}

func resize(owner events.Stream, size int64) volume.Resize {
	return volume.Resize{Intent: intent("volume.resize", opB), ResizeData: wire.ResizeData{Owner: owner, SizeGB: size}}
}

func release(owner events.Stream) volume.Release {
	return volume.Release{DeleteData: wire.DeleteData{Owner: owner}}
}

// given folds commands and facts, each of which must be accepted.
func given(t *testing.T, cs ...any) volume.Volume {
	t.Helper()
	v := volume.Decider.Initial()
	for _, c := range cs {
		evs, err := volume.Decide(v, c)
		if err != nil {
			t.Fatalf("given %T: %v", c, err)
		}
		for _, ev := range evs {
			v = volume.Evolve(v, ev)
		}
	}
	return v
}

func with(cs []any, more ...any) []any { return append(append([]any{}, cs...), more...) }

func TestDecide(t *testing.T) {
	var (
		creating = []any{create(opA, "")}
		free     = []any{create(opA, ""), made}
		owned    = []any{create(opA, vm1), made}
		deleting = with(owned, del(opA, vm1))
		deleted  = with(deleting, volume.Removed{})
		undone   = []any{create(opA, vm1), failed}
	)
	for _, c := range []struct {
		name  string
		given []any
		when  any
		then  []any // events
		code  problem.Code
		names uuid.UUID // operation that the problem names
	}{
		{name: "create", when: create(opA, vm1), then: []any{wire.CreateRequested{
			Intent: intent("volume.create", opA), CreateData: create(opA, vm1).CreateData, PoolPath: "/pool", Node: node,
		}}},
		{name: "a second create while one is under way", given: creating, when: create(opB, ""), code: problem.InvalidState, names: opA},
		{name: "create of one that exists", given: free, when: create(opB, ""), code: problem.InvalidState},
		{name: "create of one that ended", given: deleted, when: create(opB, ""), code: problem.InvalidState},
		{name: "made", given: creating, when: made, then: []any{made.Created}},
		{name: "made twice is no news", given: free, when: made},
		{name: "made after the end is no news", given: undone, when: made},
		{name: "the create failed", given: creating, when: failed, then: []any{wire.CreateFailed(failed)}},

		{name: "delete", given: free, when: del(opB, ""), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "delete by the owner", given: owned, when: del(opB, vm1), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "delete by an owner of one that nobody owns", given: free, when: del(opB, vm1), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "delete by nobody of one that is owned", given: owned, when: del(opB, ""), code: problem.InUse},
		{name: "delete by another owner", given: owned, when: del(opB, vm2), code: problem.InUse},
		{name: "delete of one whose owner is no more", given: owned, when: orphaned(opB, vm1), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "delete of one whose owner lives, though another is no more", given: owned, when: orphaned(opB, vm2), code: problem.InUse},
		{name: "delete while an orphan is deleted", given: with(owned, orphaned(opA, vm1)), when: orphaned(opB, vm1), code: problem.InvalidState, names: opA},
		{name: "delete of an orphan that never came about", given: undone, when: orphaned(opB, vm1), code: problem.NotFound},
		{name: "delete while it is created", given: creating, when: del(opB, ""), code: problem.InvalidState, names: opA},
		{name: "delete while it is deleted", given: deleting, when: del(opB, vm1), code: problem.InvalidState, names: opA},
		{name: "delete of none", when: del(opB, vm1), code: problem.NotFound},
		{name: "delete of one that ended", given: deleted, when: del(opB, ""), code: problem.NotFound},
		{name: "delete of one that ended, by a process that repeats its steps", given: deleted, when: del(opB, vm1)},
		{name: "delete of one that never came about, by its process", given: undone, when: del(opB, vm1)},
		{name: "removed", given: deleting, when: volume.Removed{}, then: []any{wire.Deleted{}}},
		{name: "removed twice is no news", given: deleted, when: volume.Removed{}},
		{name: "removed though nobody asked is no news", given: free, when: volume.Removed{}},
		{name: "the delete failed", given: deleting, when: failed, then: []any{wire.DeleteFailed(failed)}},
		{name: "delete again after it failed", given: with(deleting, failed), when: del(opB, vm1), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "failed though nothing is under way is no news", given: free, when: failed},

		{name: "resize", given: owned, when: resize(vm1, 2), then: []any{wire.ResizeRequested{Intent: intent("volume.resize", opB), SizeGB: 2}}},
		{name: "resize to what it has", given: owned, when: resize(vm1, 1)},
		{name: "resize by another owner", given: owned, when: resize(vm2, 2), code: problem.InUse},
		{name: "resize beyond all", given: owned, when: resize(vm1, 1<<20), code: problem.InvalidValue},
		{name: "resize of none", when: resize(vm1, 2), code: problem.NotFound},
		{name: "resize while it is deleted", given: deleting, when: resize(vm1, 2), code: problem.InvalidState, names: opA},
		{name: "grown", given: with(owned, resize(vm1, 2)), when: volume.Grown{}, then: []any{wire.Resized{SizeGB: 2}}},
		{name: "grown though nobody asked is no news", given: owned, when: volume.Grown{}},
		{name: "the resize failed", given: with(owned, resize(vm1, 2)), when: failed, then: []any{wire.ResizeFailed(failed)}},
		{name: "delete after a resize", given: with(owned, resize(vm1, 2), volume.Grown{}), when: del(opB, vm1), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
		{name: "release", given: owned, when: release(vm1), then: []any{wire.Released{}}},
		{name: "release twice is no news", given: with(owned, release(vm1)), when: release(vm1)},
		{name: "release by another", given: owned, when: release(vm2), code: problem.InUse},
		{name: "release by nobody", given: owned, when: release(""), code: problem.InUse},
		{name: "release while it is deleted", given: deleting, when: release(vm1), code: problem.InvalidState, names: opA},
		{name: "release of none", when: release(vm1), code: problem.NotFound},
		{name: "release of one that ended", given: deleted, when: release(vm1)},
		{name: "a released one can be deleted by anybody", given: with(owned, release(vm1)), when: del(opB, ""), then: []any{wire.DeleteRequested{Intent: intent("volume.delete", opB)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			evs, err := volume.Decide(given(t, c.given...), c.when)
			var p *problem.Problem
			if errors.As(err, &p) != (c.code != "") || p != nil && p.Code != c.code || p == nil && err != nil {
				t.Fatalf("got %v, want code %q", err, c.code)
			}
			if p != nil && c.names != uuid.Nil && p.Operation != c.names.String() {
				t.Errorf("the problem names operation %q, want %s", p.Operation, c.names)
			}
			if len(evs) != len(c.then) || len(evs) > 0 && !reflect.DeepEqual(evs, c.then) {
				t.Errorf("got %#v\nwant %#v", evs, c.then)
			}
		})
	}
}

func TestUnknownCommandIsNoRejection(t *testing.T) {
	if _, err := volume.Decide(volume.Volume{}, "create"); err == nil || problem.From(err) != nil {
		t.Errorf("got %v, want an error that is no problem", err)
	}
}

func TestNewCreate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*wire.CreateData)
		fields string
	}{
		"valid":              {func(*wire.CreateData) {}, ""},
		"owned":              {func(d *wire.CreateData) { d.Owner = vm1 }, ""},
		"largest":            {func(d *wire.CreateData) { d.SizeGB = 65536 }, ""},
		"longest name":       {func(d *wire.CreateData) { d.Name = strings.Repeat("a", 63) }, ""},
		"name too long":      {func(d *wire.CreateData) { d.Name = strings.Repeat("a", 64) }, "name"},
		"no name":            {func(d *wire.CreateData) { d.Name = "" }, "name"},
		"traversal":          {func(d *wire.CreateData) { d.Name = "../../etc/shadow" }, "name"},
		"upper case":         {func(d *wire.CreateData) { d.Name = "Data" }, "name"},
		"line break":         {func(d *wire.CreateData) { d.Name = "data\n" }, "name"},
		"an id as name":      {func(d *wire.CreateData) { d.Name = opA.String() }, "name"},
		"no pool":            {func(d *wire.CreateData) { d.Pool = uuid.Nil }, "pool"},
		"no size":            {func(d *wire.CreateData) { d.SizeGB = 0 }, "size_gb"},
		"negative size":      {func(d *wire.CreateData) { d.SizeGB = -1 }, "size_gb"},
		"size too large":     {func(d *wire.CreateData) { d.SizeGB = 65537 }, "size_gb"},
		"size that wraps":    {func(d *wire.CreateData) { d.SizeGB = 1<<34 + 1 }, "size_gb"},
		"format":             {func(d *wire.CreateData) { d.Format = "vmdk" }, "format"},
		"owner without id":   {func(d *wire.CreateData) { d.Owner = "vm/" }, "owner"},
		"owner without kind": {func(d *wire.CreateData) { d.Owner = events.Stream("/" + opA.String()) }, "owner"},
		"owner spelled odd":  {func(d *wire.CreateData) { d.Owner = "vm/{01900000-0000-7000-8000-000000000011}" }, "owner"},
		"all of it":          {func(d *wire.CreateData) { *d = wire.CreateData{} }, "name pool size_gb format"},
	} {
		t.Run(name, func(t *testing.T) {
			d := create(opA, "").CreateData
			c.change(&d)
			got, err := volume.NewCreate(intent("volume.create", opA), d)
			var fields []string
			if p := problem.From(err); p != nil && p.Code == problem.InvalidValue {
				for _, f := range p.Fields {
					fields = append(fields, f.Field)
				}
			} else if err != nil {
				t.Fatal(err)
			} else if got.CreateData != d || got.Intent != intent("volume.create", opA) {
				t.Errorf("made %+v of %+v", got, d)
			}
			if s := strings.Join(fields, " "); s != c.fields {
				t.Errorf("refused %q, want %q", s, c.fields)
			}
		})
	}
}

func TestNames(t *testing.T) {
	name := []eventstore.Name{{Scope: "volume/" + poolID.String(), Value: "data-1"}}
	for what, c := range map[string]struct {
		given          []any
		event          any
		claim, release []eventstore.Name
	}{
		"a create claims":           {nil, wire.CreateRequested{CreateData: create(opA, "").CreateData}, name, nil},
		"a failed create releases":  {[]any{create(opA, "")}, wire.CreateFailed{}, nil, name},
		"a delete releases":         {[]any{create(opA, ""), made, del(opA, "")}, wire.Deleted{}, nil, name},
		"a failed delete keeps":     {[]any{create(opA, ""), made, del(opA, "")}, wire.DeleteFailed{}, nil, nil},
		"what leaves it alone does": {[]any{create(opA, vm1), made}, wire.Released{}, nil, nil},
	} {
		t.Run(what, func(t *testing.T) {
			claim, rel := volume.Names(given(t, c.given...), c.event)
			if !reflect.DeepEqual(claim, c.claim) || !reflect.DeepEqual(rel, c.release) {
				t.Errorf("claims %v, releases %v; want %v, %v", claim, rel, c.claim, c.release)
			}
		})
	}
}
