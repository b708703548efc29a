package network_test

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/network"
	"horcrux/pkg/problem"
)

var (
	node = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	at   = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	v4   = netip.MustParsePrefix("192.168.130.1/24")
	v6   = netip.MustParsePrefix("fd00:130::1/64")
	next = netip.MustParsePrefix("192.168.131.1/24")
)

func intent(kind string) events.Intent {
	return events.Intent{
		Type: kind, Command: uuid.MustParse("01900000-0000-5000-8000-000000000003"),
		Operation: uuid.MustParse("01900000-0000-7000-8000-000000000004"), Deadline: at,
	}
}

const (
	intentJSON  = `"command":"01900000-0000-5000-8000-000000000003","operation":"01900000-0000-7000-8000-000000000004","deadline":"2026-11-22T10:00:00Z"`
	specJSON    = `"spec":{"name":"lan","mode":"nat","bridge":"virbr-00000005","ipv4":"192.168.130.1/24","ipv6":"fd00:130::1/64","dhcp":true},"node":"01900000-0000-7000-8000-000000000001"`
	problemJSON = `"problem":{"code":"in_use","detail":"no"}`
)

var (
	spec = network.Spec{Name: "lan", Mode: network.ModeNAT, Bridge: "virbr-00000005", IPv4: &v4, IPv6: &v6, DHCP: true}
	no   = problem.New(problem.InUse, "no")
)

func TestGolden(t *testing.T) {
	chosen := network.Spec{Name: "default", Mode: network.ModeNAT, Bridge: "virbr-00000005", IPv4: &v4, DHCP: true, Chosen: true}
	eventstest.Golden(t, network.Codec, []eventstest.Case{
		{
			Type: "network.create_requested", Event: network.CreateRequested{Intent: intent("network.create"), Spec: spec, Node: node},
			Data: `{"type":"network.create",` + intentJSON + `,` + specJSON + `}`,
		},
		{Type: "network.created", Event: network.Created{}, Data: `{}`},
		{Type: "network.created", Event: network.Created{IPv4: &next}, Data: `{"ipv4":"192.168.131.1/24"}`},
		{Type: "network.create_failed", Event: network.CreateFailed{Problem: no}, Data: `{` + problemJSON + `}`},
		{
			Type: "network.found", Event: network.Found{Spec: chosen, Node: node, State: network.StateInactive},
			Data: `{"spec":{"name":"default","mode":"nat","bridge":"virbr-00000005","ipv4":"192.168.130.1/24","ipv6":null,"dhcp":true,"chosen":true},"node":"01900000-0000-7000-8000-000000000001","state":"inactive"}`,
		},
		{
			Type: "network.yielded", Event: network.Yielded{Name: "default", To: node},
			Data: `{"name":"default","to":"01900000-0000-7000-8000-000000000001"}`,
		},
		{Type: "network.stopped", Event: network.Stopped{Cause: "stopped"}, Data: `{"cause":"stopped"}`},
		{Type: "network.lost", Event: network.Lost{Cause: "undefined"}, Data: `{"cause":"undefined"}`},
		{Type: "network.started", Event: network.Started{Cause: "brought back", IPv4: &next}, Data: `{"cause":"brought back","ipv4":"192.168.131.1/24"}`},
		{Type: "network.delete_requested", Event: network.DeleteRequested{Intent: intent("network.delete")}, Data: `{"type":"network.delete",` + intentJSON + `}`},
		{
			Type: "network.delete_failed", Event: network.DeleteFailed{Problem: no, State: network.StateActive},
			Data: `{` + problemJSON + `,"state":"active"}`,
		},
		{Type: "network.deleted", Event: network.Deleted{}, Data: `{}`},
	})
}

func TestView(t *testing.T) {
	id := events.NewID()
	var doc json.RawMessage
	for i, c := range []struct {
		event   any
		deleted bool
		state   network.State
		ipv4    netip.Prefix
	}{
		{network.CreateRequested{Spec: spec, Node: node}, false, network.StateCreating, v4},
		{network.Created{}, false, network.StateActive, v4},
		{network.Stopped{Cause: "stopped"}, false, network.StateInactive, v4},
		{network.Started{IPv4: &next}, false, network.StateActive, next},
		{network.Lost{Cause: "undefined"}, false, network.StateError, next},
		{network.Started{}, false, network.StateActive, next},
		{network.DeleteRequested{}, false, network.StateDeleting, next},
		{network.DeleteFailed{State: network.StateInactive}, false, network.StateInactive, next},
		{network.Deleted{}, true, network.StateInactive, next},
	} {
		d := network.Codec.Encode(c.event)
		after, deleted, err := network.Resource.Apply(doc, events.Event{
			Stream: events.NewStream(network.Kind, id), Version: int64(i + 1), Type: d.Type, Schema: d.Schema, Data: d.Data, At: at,
		})
		if err != nil || deleted != c.deleted {
			t.Fatalf("%s: deleted %t, %v", d.Type, deleted, err)
		}
		var v network.View
		if err := json.Unmarshal(after, &v); err != nil {
			t.Fatal(err)
		}
		if v.ID != id || v.Name != "lan" || v.Node != node || v.State != c.state || *v.IPv4 != c.ipv4 || *v.IPv6 != v6 || !v.DHCP {
			t.Errorf("after %s: %s", d.Type, after)
		}
		doc = after
	}
}
