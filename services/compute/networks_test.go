package compute_test

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	netwire "horcrux/pkg/events/network"
	"horcrux/pkg/events/operation"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/fake"
	"horcrux/services/compute/network"
)

// lan folds the view of a network, and lists what happened to it: "created", "stopped undefined".
func (n *node) lan(id uuid.UUID) (v netwire.View, told string) {
	n.Helper()
	h, err := n.store.Load(context.Background(), events.NewStream(netwire.Kind, id))
	if err != nil {
		n.Fatal(err)
	}
	var doc json.RawMessage
	var types []string
	for _, e := range h[0].Events {
		if doc, _, err = netwire.Resource.Apply(doc, e); err != nil {
			n.Fatal(err)
		}
		types = append(types, strings.TrimSpace(strings.TrimPrefix(e.Type, "network.")+" "+e.Meta.Reason))
	}
	if doc != nil {
		if err := json.Unmarshal(doc, &v); err != nil {
			n.Fatal(err)
		}
	}
	return v, strings.Join(types, ", ")
}

// tells waits until this is what happened to a network.
func (n *node) tells(id uuid.UUID, want string) {
	n.Helper()
	got := ""
	defer func() {
		if n.Failed() {
			n.Logf("told %q", got)
		}
	}()
	n.eventually("told "+want, func() bool { _, got = n.lan(id); return got == want })
}

// active says whether the hypervisor has a network of a name that guests can be on.
func (n *node) active(name string) bool {
	n.Helper()
	d := n.h.Driver()
	defer d.Close()
	names, err := d.Networks(context.Background())
	if err != nil {
		n.Fatal(err)
	}
	return slices.Contains(names, name)
}

func (n *node) restart(meanwhile func()) {
	n.Helper()
	n.stop()
	meanwhile()
	n.run()
}

func lan(name string) netwire.CreateData {
	v4 := "192.168.130.1/24"
	return netwire.CreateData{Name: name, Mode: netwire.ModeNAT, IPv4: &v4}
}

func TestNetwork(t *testing.T) {
	t.Run("lives from create to delete", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.want(n.ask("network.create", id, lan("lan"), time.Minute), "")
		if v, _ := n.lan(id); v.State != netwire.StateActive || v.IPv4.String() != "192.168.130.1/24" || v.Node != n.id || !n.active("lan") {
			t.Fatalf("%+v", v)
		}
		n.want(n.ask("network.create", events.NewID(), lan("lan2"), time.Minute), problem.InvalidValue) // the same range
		other := netwire.CreateData{Name: "lan", Mode: netwire.ModeNAT}
		n.want(n.ask("network.create", events.NewID(), other, time.Minute), problem.NameTaken)
		n.want(n.ask("network.delete", id, nil, time.Minute), "")
		n.want(n.ask("network.delete", id, nil, time.Minute), problem.NotFound)
		if e := n.h.NetworkEffects(id); e != (fake.NetworkEffects{Defined: 1, Started: 1, Removed: 1}) {
			t.Fatalf("%+v", e)
		}
		n.want(n.ask("network.create", events.NewID(), lan("lan"), time.Minute), "")
	})
	t.Run("is held by machines that have an interface on it", func(t *testing.T) {
		n := newNode(t)
		id, guest := events.NewID(), events.NewID()
		n.want(n.ask("network.create", id, lan("lan"), time.Minute), "")
		d := machine("web", 0)
		d.Spec.Networks = []wire.NIC{{Network: "lan", Model: "virtio"}}
		n.want(n.ask("create", guest, d, time.Minute), "")
		if op := n.want(n.ask("network.delete", id, nil, time.Minute), problem.InUse); !strings.Contains(op.Error.Detail, "web") {
			t.Errorf("%+v", op.Error)
		}
		n.want(n.ask("delete", guest, wire.DeleteData{}, time.Minute), "")
		foreign := hypervisor.Spec{ID: uuid.New(), Name: "foreign", NICs: []hypervisor.NIC{{Network: "lan"}}}
		n.h.Add(foreign, hypervisor.Running, false)
		if op := n.want(n.ask("network.delete", id, nil, time.Minute), problem.InUse); !strings.Contains(op.Error.Detail, "foreign") {
			t.Errorf("%+v", op.Error)
		}
		n.h.Remove(foreign.ID)
		n.want(n.ask("network.delete", id, nil, time.Minute), "")
	})
	t.Run("that cannot be is taken back, and its name is free", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.h.Inject(fake.Fault{Method: "StartNetwork", Domain: id, Err: hypervisor.ErrInvalid})
		n.want(n.ask("network.create", id, lan("lan"), time.Minute), problem.EffectFailed)
		if e := n.h.NetworkEffects(id); e != (fake.NetworkEffects{Defined: 1, Removed: 1}) {
			t.Fatalf("%+v", e)
		}
		n.want(n.ask("network.create", events.NewID(), lan("lan"), time.Minute), "")
	})
	t.Run("that could not be taken back is cleared away", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		n.h.Inject(fake.Fault{Method: "StartNetwork", Domain: id, Err: hypervisor.ErrInvalid})
		n.h.Inject(fake.Fault{Method: "RemoveNetwork", Domain: id, Err: hypervisor.ErrUnavailable, Times: 3})
		n.want(n.ask("network.create", id, lan("lan"), time.Minute), problem.EffectFailed)
		n.eventually("it is removed", func() bool { return n.h.NetworkEffects(id).Removed == 1 })
	})
	t.Run("of a name that the hypervisor knows is refused", func(t *testing.T) {
		n := newNode(t)
		foreign := network.Definition{ID: uuid.New(), Spec: netwire.Spec{Name: "lan", Mode: netwire.ModeNAT}}
		n.h.AddNetwork(foreign, true)
		n.want(n.ask("network.create", events.NewID(), lan("lan"), time.Minute), problem.NameTaken)
		if !n.active("lan") || n.h.NetworkEffects(foreign.ID) != (fake.NetworkEffects{}) {
			t.Error("the foreign one was touched")
		}
	})
	t.Run("whose answers were lost is made and deleted once", func(t *testing.T) {
		n := newNode(t)
		id := events.NewID()
		for _, method := range []string{"DefineNetwork", "StartNetwork", "RemoveNetwork"} {
			n.h.Inject(fake.Fault{Method: method, Domain: id, When: fake.After, Err: hypervisor.ErrUnknown})
		}
		n.want(n.ask("network.create", id, lan("lan"), time.Minute), "")
		n.want(n.ask("network.delete", id, nil, time.Minute), "")
		if e := n.h.NetworkEffects(id); e != (fake.NetworkEffects{Defined: 1, Started: 1, Removed: 1}) {
			t.Fatalf("%+v", e)
		}
	})
	t.Run("is refused while the hypervisor is down", func(t *testing.T) {
		n := newNode(t)
		n.h.SetAvailable(false)
		n.want(n.ask("network.create", events.NewID(), lan("lan"), time.Minute), problem.HypervisorUnavailable)
		n.want(n.ask("network.delete", netwire.DefaultID(n.id), nil, time.Minute), problem.HypervisorUnavailable)
		n.h.SetAvailable(true)
		n.eventually("it is taken", func() bool {
			return n.ask("network.create", events.NewID(), lan("lan"), time.Minute).State == operation.StateSucceeded
		})
	})
}

func TestNetworksComeBack(t *testing.T) {
	n := newNode(t)
	id := events.NewID()
	n.want(n.ask("network.create", id, lan("lan"), time.Minute), "")
	told := "create_requested, created"
	n.h.StopNetwork(id)
	told += ", stopped stopped, started brought back"
	n.tells(id, told)
	n.h.UndefineNetwork(id) // it is active still
	told += ", lost undefined, started brought back"
	n.tells(id, told)
	n.restart(func() { n.h.UndefineNetwork(id); n.h.StopNetwork(id) })
	told += ", lost undefined, started brought back"
	n.tells(id, told)
	n.restart(func() { n.h.StopNetwork(id) }) // as a reboot does
	n.eventually("it is active", func() bool { return n.active("lan") })
	n.tells(id, told)

	// One that cannot come back is inactive, and tried again.
	n.h.Inject(fake.Fault{Method: "StartNetwork", Domain: id, Err: hypervisor.ErrInvalid, Times: 3})
	n.h.StopNetwork(id)
	n.tells(id, told+", stopped stopped, started brought back")
	n.want(n.ask("network.delete", id, nil, time.Minute), "")
	n.tells(id, told+", stopped stopped, started brought back, delete_requested, deleted")
}

func TestDefaultNetwork(t *testing.T) {
	at := func(n *node) string {
		v, _ := n.lan(netwire.DefaultID(n.id))
		return v.IPv4.String()
	}
	t.Run("is made at the first start, and not again when it was deleted", func(t *testing.T) {
		n := newNode(t)
		id := netwire.DefaultID(n.id)
		n.tells(id, "found found")
		if v, _ := n.lan(id); v.Name != "default" || v.State != netwire.StateActive || at(n) != "192.168.122.1/24" || !n.active("default") {
			t.Fatalf("%+v", v)
		}
		n.restart(func() {})
		n.tells(id, "found found")
		n.want(n.ask("network.delete", id, nil, time.Minute), "")
		n.restart(func() {})
		n.tells(id, "found found, delete_requested, deleted")
		if n.active("default") {
			t.Error("it came back")
		}
		n.want(n.ask("network.create", events.NewID(), netwire.CreateData{Name: "default", Mode: netwire.ModeNAT}, time.Minute), "")
	})
	t.Run("is the one that the node had before us", func(t *testing.T) {
		v4 := netip.MustParsePrefix("10.9.0.1/24")
		had := network.Definition{ID: uuid.New(), Spec: netwire.Spec{Name: "default", Mode: netwire.ModeNAT, Bridge: "virbr0", IPv4: &v4, DHCP: true}}
		n := newNode(t, func(n *node) { n.h.AddNetwork(had, true) })
		n.tells(had.ID, "found found")
		n.tells(netwire.DefaultID(n.id), "yielded found")
		if v, _ := n.lan(had.ID); v.State != netwire.StateActive || *v.IPv4 != v4 || v.Bridge != "virbr0" || !v.DHCP {
			t.Errorf("%+v", v)
		}
		if e := n.h.NetworkEffects(had.ID); e != (fake.NetworkEffects{}) {
			t.Errorf("it was touched: %+v", e)
		}
		n.want(n.ask("network.delete", had.ID, nil, time.Minute), "")
		n.restart(func() {})
		if n.active("default") {
			t.Error("it came back")
		}
	})
	t.Run("is inactive where the node cannot have it, and nothing else fails", func(t *testing.T) {
		n := newNode(t, func(n *node) {
			n.h.Inject(fake.Fault{Method: "StartNetwork", Err: hypervisor.ErrPermission, Times: 3})
		})
		id := netwire.DefaultID(n.id)
		if v, _ := n.lan(id); v.State != netwire.StateInactive {
			t.Errorf("%+v", v)
		}
		n.want(n.ask("create", events.NewID(), machine("web", 0), time.Minute), "")
		n.tells(id, "found found, started brought back")
	})
	t.Run("moves where its range has been taken", func(t *testing.T) {
		n := newNode(t)
		id := netwire.DefaultID(n.id)
		n.restart(func() {
			n.h.StopNetwork(id)
			n.h.Inject(fake.Fault{Method: "StartNetwork", Domain: id, Err: hypervisor.ErrInvalid})
			n.host.Used = []network.Use{{Prefix: netip.MustParsePrefix("192.168.122.0/23"), By: "the node's interface lan0"}}
		})
		n.tells(id, "found found, started brought back")
		if at(n) != "192.168.124.1/24" || !n.active("default") {
			t.Errorf("it is at %s", at(n))
		}
	})
}
