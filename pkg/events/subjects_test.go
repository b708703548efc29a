package events_test

import (
	"encoding/json"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events"
)

var (
	node   = uuid.MustParse("01900000-0000-7000-8000-000000000001")
	object = uuid.MustParse("01900000-0000-7000-8000-000000000002")
)

// TestSubjects also says that nothing of what a user gives is ever part of a subject: were it, a dot, a blank or a
// wildcard would send the message elsewhere.
func TestSubjects(t *testing.T) {
	const evil = "a.b *.> \r\n"
	given := json.RawMessage(`{"name":"a.b *.> \r\n"}`)
	command := events.Command{
		ID: events.NewID(), To: events.Address{Domain: "compute", Node: node.String()}, Type: "vm.start", Target: object,
		Data: given, Meta: events.Meta{Actor: evil, Reason: evil}, Step: evil, Inputs: map[string]json.RawMessage{evil: given},
	}
	event := events.Event{
		ID: events.NewID(), Stream: events.NewStream("vm", object), Version: 3, Type: "vm.start_requested", Data: given,
		Meta: events.Meta{Actor: evil, Reason: evil},
	}
	anybody := events.Address{Domain: "compute", Node: events.AnyNode}
	for _, c := range []struct{ name, got, want string }{
		{"command", command.Subject(), "horcrux.v1.cmd.compute.01900000-0000-7000-8000-000000000001.vm.01900000-0000-7000-8000-000000000002.start"},
		{"what a node consumes", command.To.CommandFilter(), "horcrux.v1.cmd.compute.01900000-0000-7000-8000-000000000001.>"},
		{"what any node consumes", anybody.CommandFilter(), "horcrux.v1.cmd.compute.any.>"},
		{"consumer of a node", command.To.Consumer(), "compute_01900000-0000-7000-8000-000000000001"},
		{"consumer of any node", anybody.Consumer(), "compute_any"},
		{"event", event.Subject("compute"), "horcrux.v1.evt.compute.vm.01900000-0000-7000-8000-000000000002.start_requested"},
		{"dead letter", events.DeadLetterSubject("compute", "poison"), "horcrux.v1.dlq.compute.poison"},
		{"question", events.RPCSubject("compute", node, "console"), "horcrux.v1.rpc.compute.01900000-0000-7000-8000-000000000001.console"},
		{"progress", events.ProgressSubject(object), "horcrux.v1.progress.01900000-0000-7000-8000-000000000002"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.got, c.want)
		}
	}
}

func TestStream(t *testing.T) {
	s := events.NewStream("vm", object)
	if s != "vm/01900000-0000-7000-8000-000000000002" || s.Kind() != "vm" || s.ID() != object {
		t.Errorf("%s: kind %s, id %s", s, s.Kind(), s.ID())
	}
	for _, s := range []events.Stream{"", "vm", "vm/", "vm/web-1"} {
		if s.ID() != uuid.Nil {
			t.Errorf("%q has the id %s", s, s.ID())
		}
	}
}

func TestCommandNamesWhatItIsFor(t *testing.T) {
	c := events.Command{
		ID: node, Type: "volume.create", Target: object, Meta: events.Meta{Operation: node}, Step: "disk 0",
		ReplyTo: &events.Address{Domain: "compute", Node: "any"},
	}
	if c.Kind() != "volume" || c.Verb() != "create" || c.Stream() != events.NewStream("volume", object) {
		t.Errorf("kind %s, verb %s, stream %s", c.Kind(), c.Verb(), c.Stream())
	}
	want := events.Intent{Type: c.Type, Command: c.ID, Operation: node, Step: "disk 0", ReplyTo: c.ReplyTo, Deadline: c.Deadline}
	if c.Intent() != want {
		t.Errorf("intent %+v, want %+v", c.Intent(), want)
	}
}

func TestPrincipal(t *testing.T) {
	if got := (events.Meta{Actor: "uid:0"}).Principal(); got != "uid:0" {
		t.Errorf("got %s", got)
	}
	if got := (events.Meta{Actor: "service:compute", OnBehalfOf: "uid:0"}).Principal(); got != "uid:0" {
		t.Errorf("got %s", got)
	}
}

// What was derived once is looked for under the same id for ever.
func TestDerivedID(t *testing.T) {
	seen := map[uuid.UUID][]any{}
	for _, c := range []struct {
		parts []any
		want  string
	}{
		{[]any{}, "2b1b748f-e98d-5724-be7d-5bc704b66e6a"},
		{[]any{"a"}, "3f136a07-16c2-5744-8944-296d5c377f09"},
		{[]any{"a", "b"}, "30c8870f-94ba-53aa-9a98-55c576335c36"},
		{[]any{"ab"}, "0fed2886-5797-51b2-a63d-ecf10e1ec8b5"},
		{[]any{"b", "a"}, "498edbea-5514-53c0-b982-2091318f7e0e"},
		{[]any{"a", ""}, "d20f920a-b52a-5536-8ae0-82aee2a1056f"},
		{[]any{object, "step", "disk 0", false}, "16bedbf3-943d-5482-90b9-47646ad49cd4"},
		{[]any{object, "step", "disk 0", true}, "e414a9cd-20e4-5da5-b4ea-5d6b84a945a6"},
	} {
		got := events.DerivedID(c.parts...)
		if got.String() != c.want {
			t.Errorf("%v gives %s, want %s", c.parts, got, c.want)
		}
		if got.Version() != 5 {
			t.Errorf("%v gives version %d", c.parts, got.Version())
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%v and %v give the same id", other, c.parts)
		}
		seen[got] = c.parts
	}
}

func TestNewID(t *testing.T) {
	a, b := events.NewID(), events.NewID()
	if a.Version() != 7 || a == b || a.String() > b.String() {
		t.Errorf("%s, then %s", a, b)
	}
}
