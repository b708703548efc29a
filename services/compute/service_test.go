package compute_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"horcrux/pkg/bus"
	"horcrux/pkg/bus/bustest"
	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/pool"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/memory"
	"horcrux/pkg/problem"
	"horcrux/services/compute"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/compute/network"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is a node of a test: a compute service on a fake hypervisor, and in the place of the storage service a
// recorder that answers.
type node struct {
	*testing.T
	id     uuid.UUID
	store  *memory.Store
	bus    *bus.Bus
	h      *fake.Hypervisor
	images string
	stop   func()

	wrap func(hypervisor.Driver) hypervisor.Driver // what the service sees of the driver; nil: all
	host network.Host                              // what the node has besides; set while the service does not run

	mu      sync.Mutex
	storage []string // commands that storage got: "volume.create disk 0"
	refuse  *problem.Problem
}

func newNode(t *testing.T, before ...func(*node)) *node {
	b := bustest.New(t, bus.Options{})
	n := &node{T: t, id: events.NewID(), store: memory.New(nil), bus: b, h: fake.New(), images: t.TempDir()}
	defined := pool.Codec.Encode(pool.Defined{Name: "local", Type: "dir", Path: "/none", Node: n.id})
	if _, err := n.store.Append(t.Context(), eventstore.Append{Streams: []eventstore.StreamAppend{{
		Stream: events.NewStream(pool.Kind, events.DerivedID("pool")), Events: []events.Draft{defined},
		Claim: []eventstore.Name{{Scope: pool.NameScope, Value: "local"}},
	}}}); err != nil {
		t.Fatal(err)
	}
	for _, set := range before {
		set(n)
	}
	n.run()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *node) run() {
	ctx, cancel := context.WithCancel(context.Background())
	driver := n.h.Driver()
	var seen hypervisor.Driver = driver
	if n.wrap != nil {
		seen = n.wrap(driver)
	}
	s := compute.New(compute.Options{
		Node: n.id, Store: n.store, Bus: n.bus, Driver: seen, Networks: driver, Usage: driver, ImageDirs: []string{n.images}, Log: slog.New(slog.DiscardHandler), Resync: 50 * time.Millisecond,
		Accelerator: hypervisor.TCG, Host: n.look,
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			n.Errorf("compute: %v", err)
		}
	})
	wg.Go(func() {
		if err := n.bus.Consume(ctx, []events.Address{{Domain: "storage", Node: n.id.String()}}, n.store1); err != nil {
			n.Errorf("storage: %v", err)
		}
	})
	n.stop = func() { cancel(); wg.Wait(); driver.Close() }
	n.eventually("the service is ready", func() bool { return s.Ready(ctx) == nil })
}

// look is a fresh copy each time, as a look at a real host is.
func (n *node) look() (network.Host, error) {
	h := network.Host{Links: map[string]bool{}, Used: slices.Clone(n.host.Used)}
	maps.Copy(h.Links, n.host.Links)
	return h, nil
}

// store1 answers one command as the storage service does.
func (n *node) store1(ctx context.Context, cmd events.Command) (bus.Decision, error) {
	n.mu.Lock()
	n.storage = append(n.storage, cmd.Type+" "+cmd.Step)
	refuse := n.refuse
	n.mu.Unlock()
	end := map[string]any{"step": cmd.Step, "command": cmd.ID}
	if cmd.Type == "volume.create" {
		end["result"] = volume.Created{Type: "file", Path: "/pool/" + cmd.Step, Format: "qcow2"}
		if refuse != nil && cmd.Step == "disk 1" {
			end["problem"] = refuse
		}
	}
	data, err := json.Marshal(end)
	if err != nil {
		return bus.Decision{}, err
	}
	return bus.Decision{Command: cmd.ID}, n.bus.Publish(ctx, events.Command{
		ID: events.DerivedID(cmd.ID, "ended"), To: *cmd.ReplyTo, Type: "operation.step_ended", Target: cmd.Meta.Operation,
		Data: data, Meta: cmd.Meta, Deadline: time.Now().Add(time.Minute),
	}, 0)
}

func (n *node) stored() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.storage, ", ")
}

// ask records an operation as the gateway does, publishes its command, and waits for its end. A verb without a kind is one
// of machines.
func (n *node) ask(verb string, vm uuid.UUID, data any, within time.Duration) operation.View {
	n.Helper()
	op := n.send(verb, vm, data, within)
	var v operation.View
	n.eventually("the operation ends: "+verb, func() bool { v = n.operation(op); return v.State.Ended() })
	return v
}

func (n *node) send(verb string, vm uuid.UUID, data any, within time.Duration) uuid.UUID {
	n.Helper()
	raw, err := json.Marshal(data)
	if err != nil {
		n.Fatal(err)
	}
	op := events.NewID()
	if !strings.Contains(verb, ".") {
		verb = "vm." + verb
	}
	cmd := events.Command{
		ID: events.NewID(), To: events.Address{Domain: "compute", Node: n.id.String()}, Type: verb, Target: vm, Data: raw,
		Meta: events.Meta{Actor: "uid:0", Operation: op}, Deadline: time.Now().Add(within),
	}
	requested := operation.Codec.Encode(operation.Requested{Type: cmd.Type, Command: cmd.ID, Resource: cmd.Stream(), Collection: "vms", Deadline: cmd.Deadline})
	if _, err := n.store.Append(n.Context(), eventstore.Append{Meta: cmd.Meta, Send: []events.Command{cmd}, Streams: []eventstore.StreamAppend{
		{Stream: events.NewStream(operation.Kind, op), Events: []events.Draft{requested}},
	}}); err != nil {
		n.Fatal(err)
	}
	if err := n.bus.Publish(n.Context(), cmd, 0); err != nil {
		n.Fatal(err)
	}
	return op
}

func (n *node) operation(op uuid.UUID) operation.View {
	n.Helper()
	h, err := n.store.Load(context.Background(), events.NewStream(operation.Kind, op))
	if err != nil {
		n.Fatal(err)
	}
	var v operation.View
	for _, e := range h[0].Events {
		if v, err = operation.Apply(v, e); err != nil {
			n.Fatal(err)
		}
	}
	return v
}

func (n *node) vm(id uuid.UUID) wire.View {
	n.Helper()
	h, err := n.store.Load(context.Background(), events.NewStream(wire.Kind, id))
	if err != nil {
		n.Fatal(err)
	}
	var doc json.RawMessage
	for _, e := range h[0].Events {
		if doc, _, err = wire.Resource.Apply(doc, e); err != nil {
			n.Fatal(err)
		}
	}
	var v wire.View
	if doc != nil {
		if err := json.Unmarshal(doc, &v); err != nil {
			n.Fatal(err)
		}
	}
	return v
}

func (n *node) eventually(what string, ok func() bool) {
	n.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("not in time: %s", what)
		}
	}
}

func (n *node) want(v operation.View, code problem.Code) operation.View {
	n.Helper()
	if code == "" && v.State != operation.StateSucceeded || code != "" && (v.State != operation.StateFailed || v.Error.Code != code) {
		n.Fatalf("operation %s: %s %+v, want %q", v.Type, v.State, v.Error, code)
	}
	return v
}

func machine(name string, disks int) wire.CreateData {
	d := wire.CreateData{Spec: wire.Spec{Name: name, Backend: "qemu", Firmware: "bios", CPUs: 1, MemoryMB: 64}}
	for range disks {
		d.Spec.Disks = append(d.Spec.Disks, wire.Disk{Pool: "local", SizeGB: 1, Format: "qcow2", Bus: "virtio"})
	}
	return d
}

func TestMachine(t *testing.T) {
	t.Run("lives from create to delete", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		d := machine("web", 2)
		d.Start = true
		n.want(n.ask("create", id, d, time.Minute), "")
		if v := n.vm(id); v.State != wire.StateRunning || *v.Accelerator != "tcg" || *v.NativeID != "web" {
			t.Fatalf("%+v", v)
		}
		spec, _ := n.h.Spec(id)
		if len(spec.Disks) != 2 || spec.Disks[1].Path != "/pool/disk 1" {
			t.Fatalf("%+v", spec)
		}
		n.want(n.ask("start", id, nil, time.Minute), problem.InvalidState)
		n.want(n.ask("delete", id, wire.DeleteData{}, time.Minute), problem.InvalidState)
		n.want(n.ask("stop", id, wire.StopData{Force: true}, time.Minute), "")
		n.want(n.ask("delete", id, wire.DeleteData{}, time.Minute), "")
		if got := n.stored(); got != "volume.create disk 0, volume.create disk 1, volume.delete disk 0, volume.delete disk 1" {
			t.Fatal(got)
		}
		if e := n.h.Effects(id); e != (fake.Effects{Defined: 1, Started: 1, Destroyed: 1, Undefined: 1}) {
			t.Fatalf("%+v", e)
		}
	})
	t.Run("keeps its disks when asked to", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("web", 1), time.Minute), "")
		n.want(n.ask("delete", id, wire.DeleteData{KeepDisks: true}, time.Minute), "")
		if got := n.stored(); got != "volume.create disk 0, volume.release disk 0" {
			t.Fatal(got)
		}
	})
	t.Run("is taken back when a disk fails, and its name is free", func(t *testing.T) {
		n := newNode(t)
		n.refuse = problem.New(problem.InsufficientResources, "full")
		id := events.NewID()
		n.want(n.ask("create", id, machine("web", 3), time.Minute), problem.InsufficientResources)
		if got := n.stored(); got != "volume.create disk 0, volume.create disk 1, volume.delete disk 0" {
			t.Fatal(got)
		}
		if e := n.h.Effects(id); e != (fake.Effects{}) {
			t.Fatalf("%+v", e)
		}
		n.want(n.ask("create", events.NewID(), machine("web", 0), time.Minute), "")
	})
	t.Run("changes what may change, at the hypervisor too", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("web", 0), time.Minute), "")
		on, text, tags := true, "the web", []string{"a", "b"}
		n.want(n.ask("update", id, wire.UpdateData{Description: &text, Autostart: &on, Tags: &tags}, time.Minute), "")
		v := n.vm(id)
		spec, _ := n.h.Spec(id)
		if v.Description != text || !v.Autostart || len(v.Tags) != 2 || spec.Description != text || !spec.Autostart {
			t.Fatalf("%+v %+v", v, spec)
		}
	})
	t.Run("shows what happens behind our back", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		d := machine("web", 0)
		d.Start = true
		n.want(n.ask("create", id, d, time.Minute), "")
		n.h.Become(id, hypervisor.Off, "destroyed")
		n.eventually("it is stopped", func() bool { return n.vm(id).State == wire.StateStopped })
		n.h.Remove(id)
		n.eventually("it is lost", func() bool { return n.vm(id).State == wire.StateError })
		n.want(n.ask("delete", id, wire.DeleteData{}, time.Minute), "")
	})
}

func TestResync(t *testing.T) {
	n := newNode(t)
	ids := map[string]uuid.UUID{}
	for _, name := range []string{"killed", "undefined", "left-alone"} {
		ids[name] = events.NewID()
		d := machine(name, 0)
		d.Start = true
		n.want(n.ask("create", ids[name], d, time.Minute), "")
	}
	n.stop()
	n.h.Become(ids["killed"], hypervisor.Off, "destroyed")
	n.h.Remove(ids["undefined"])
	n.run()
	n.eventually("what happened meanwhile is seen", func() bool {
		return n.vm(ids["killed"]).State == wire.StateStopped && n.vm(ids["undefined"]).State == wire.StateError
	})
	version := n.vm(ids["left-alone"]).Version
	n.h.SetSilent(true) // no more changes are told
	n.h.Become(ids["left-alone"], hypervisor.Off, "destroyed")
	n.eventually("a change that nobody told is found", func() bool { return n.vm(ids["left-alone"]).State == wire.StateStopped })
	if v := n.vm(ids["left-alone"]); v.Version != version+1 {
		t.Fatalf("%d events for one change", v.Version-version)
	}
}

func TestRefusals(t *testing.T) {
	n := newNode(t)
	n.want(n.ask("create", events.NewID(), machine("taken", 0), time.Minute), "")
	outside := filepath.Join(t.TempDir(), "secret")
	for _, f := range []string{outside, filepath.Join(n.images, "kernel")} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(n.images, "link")); err != nil {
		t.Fatal(err)
	}
	kernel := func(path string) func(*wire.CreateData) {
		return func(d *wire.CreateData) { d.Spec.Boot.Kernel = &path }
	}
	other := events.NewID()
	for _, c := range []struct {
		name   string
		change func(*wire.CreateData)
		code   problem.Code
		field  string
	}{
		{"name taken", func(d *wire.CreateData) { d.Spec.Name = "taken" }, problem.NameTaken, "name"},
		{"more CPUs than the host", func(d *wire.CreateData) { d.Spec.CPUs = 65 }, problem.InvalidValue, "cpus"},
		{"more memory than the host", func(d *wire.CreateData) { d.Spec.MemoryMB = 1 << 30 }, problem.InvalidValue, "memory_mb"},
		{"no such pool", func(d *wire.CreateData) { d.Spec.Disks = []wire.Disk{{Pool: "none"}} }, problem.InvalidValue, "disks[0].pool"},
		{"no pool of that id", func(d *wire.CreateData) { d.Spec.Disks = []wire.Disk{{Pool: events.NewID().String()}} }, problem.InvalidValue, "disks[0].pool"},
		{"no such node", func(d *wire.CreateData) { d.Node = &other }, problem.InvalidValue, "node"},
		{"a backend that is not built", func(d *wire.CreateData) { d.Spec.Backend = "incus" }, problem.FeatureNotBuilt, "backend"},
		{"a missing kernel", kernel(filepath.Join(n.images, "none")), problem.InvalidValue, "boot.kernel"},
		{"a kernel outside", kernel(outside), problem.InvalidValue, "boot.kernel"},
		{"a kernel by traversal", kernel(n.images + "/../" + filepath.Base(outside)), problem.InvalidValue, "boot.kernel"},
		{"a kernel by symlink", kernel(filepath.Join(n.images, "link")), problem.InvalidValue, "boot.kernel"},
		{"a directory as a kernel", kernel(n.images), problem.InvalidValue, "boot.kernel"},
		{"a kernel that is there", kernel(filepath.Join(n.images, "kernel")), "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := machine("m-"+strings.ReplaceAll(strings.ToLower(c.name), " ", "-"), 0)
			c.change(&d)
			id := events.NewID()
			v := n.want(n.ask("create", id, d, time.Minute), c.code)
			if c.code == "" {
				return
			}
			if len(v.Error.Fields) != 1 || v.Error.Fields[0].Field != c.field || strings.Contains(v.Error.Detail, outside) {
				t.Fatalf("%+v", v.Error)
			}
			if n.vm(id).Version != 0 || n.h.Effects(id) != (fake.Effects{}) {
				t.Fatal("something is left")
			}
		})
	}
}

func TestFaults(t *testing.T) {
	t.Run("a hypervisor that is down rejects new commands and heals by itself", func(t *testing.T) {
		n := newNode(t)
		n.h.SetAvailable(false)
		n.want(n.ask("create", events.NewID(), machine("a", 0), time.Minute), problem.HypervisorUnavailable)
		n.h.SetAvailable(true)
		n.eventually("it takes commands", func() bool {
			return n.ask("create", events.NewID(), machine("b", 0), time.Minute).State == operation.StateSucceeded
		})
	})
	t.Run("an accepted start outlives a hypervisor that goes away", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("a", 0), time.Minute), "")
		n.h.Inject(fake.Fault{Method: "Start", Err: hypervisor.ErrUnavailable, Times: 2})
		n.want(n.ask("start", id, nil, time.Minute), "")
		if e := n.h.Effects(id); e.Started != 1 {
			t.Fatalf("%+v", e)
		}
	})
	t.Run("a start whose answer was lost is not done twice", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("a", 0), time.Minute), "")
		n.h.Inject(fake.Fault{Method: "Start", When: fake.After, Err: hypervisor.ErrUnknown})
		n.want(n.ask("start", id, nil, time.Minute), "")
		if e := n.h.Effects(id); e.Started != 1 {
			t.Fatalf("%+v", e)
		}
	})
	t.Run("an intent past its deadline fails", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("a", 0), time.Minute), "")
		n.h.Inject(fake.Fault{Method: "Start", Err: hypervisor.ErrUnavailable, Times: 1000})
		n.want(n.ask("start", id, nil, 500*time.Millisecond), problem.DeadlineExceeded)
		if v := n.vm(id); v.State != wire.StateStopped {
			t.Fatalf("%+v", v)
		}
	})
	t.Run("a guest that ignores shutdown can be stopped by force", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		d := machine("a", 0)
		d.Start = true
		n.want(n.ask("create", id, d, time.Minute), "")
		n.h.SetObedient(false)
		asked := n.send("shutdown", id, wire.StopData{TimeoutS: 60}, time.Minute)
		n.eventually("it is stopping", func() bool { return n.vm(id).State == wire.StateStopping })
		n.want(n.ask("stop", id, wire.StopData{Force: true}, time.Minute), "")
		n.want(n.operation(asked), problem.Superseded)
		n.want(n.ask("start", id, nil, time.Minute), "")
		n.want(n.ask("shutdown", id, wire.StopData{TimeoutS: 1}, time.Minute), problem.DeadlineExceeded)
		if v := n.vm(id); v.State != wire.StateRunning {
			t.Fatalf("%+v", v)
		}
	})
	t.Run("a refused configuration fails without the driver's words", func(t *testing.T) {
		n := newNode(t)
		n.h.Inject(fake.Fault{Method: "Define", Err: errors.Join(hypervisor.ErrInvalid, errors.New("raw words"))})
		v := n.want(n.ask("create", events.NewID(), machine("a", 1), time.Minute), problem.InvalidValue)
		if strings.Contains(v.Error.Detail, "raw words") || n.stored() != "volume.create disk 0, volume.delete disk 0" {
			t.Fatalf("%+v %s", v.Error, n.stored())
		}
	})
	t.Run("a crash between effect and fact changes nothing twice", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("create", id, machine("a", 0), time.Minute), "")
		n.h.SetLatency(400 * time.Millisecond)
		op := n.send("start", id, nil, time.Minute)
		n.eventually("it has started", func() bool { return n.h.Effects(id).Started == 1 })
		n.stop() // before the fact
		if n.operation(op).State.Ended() {
			t.Fatal("too late to cut it off")
		}
		n.h.SetLatency(0)
		n.run()
		n.eventually("the operation ends", func() bool { return n.operation(op).State == operation.StateSucceeded })
		if e := n.h.Effects(id); e.Started != 1 {
			t.Fatalf("%+v", e)
		}
	})
}
