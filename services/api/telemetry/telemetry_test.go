package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/problem"
	"horcrux/pkg/usage"
)

var here, silent, down = uuid.UUID{1}, uuid.UUID{2}, uuid.UUID{3}

// nodes answer with three machines on pages of two; one is silent, one has no hypervisor.
type nodes struct{}

func (nodes) Call(ctx context.Context, domain string, node uuid.UUID, method string, request, result any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	q := request.(usage.Question)
	answer := func(v any) error {
		doc, err := json.Marshal(v)
		*result.(*json.RawMessage) = doc
		return err
	}
	switch {
	case node == down:
		return problem.New(problem.HypervisorUnavailable, "it is down")
	case node == here && method == usage.NodeMethod:
		p := usage.Page{Node: usage.Node{ID: here}}
		for i := int(q.After[15]) + 1; i <= 3; i++ {
			if len(p.VMs) == 2 {
				last := uuid.UUID{15: byte(i - 1)}
				p.Next = &last
				break
			}
			p.VMs = append(p.VMs, json.RawMessage(fmt.Sprintf(`{"name":"vm%d"}`, i)))
		}
		return answer(p)
	case node == here && method == usage.VMMethod:
		return answer(usage.VM{ID: q.VM})
	}
	return problem.New(problem.Unavailable, "the %s service of node %s does not answer", domain, node)
}

func reader(asked ...uuid.UUID) Reader {
	return Reader{Bus: nodes{}, Log: slog.New(slog.DiscardHandler), Nodes: func() (all []Node) {
		for _, id := range asked {
			all = append(all, Node{id, "node" + id.String()[:2]})
		}
		return all
	}}
}

func TestAll(t *testing.T) {
	all, err := reader(silent, here, down).All(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s", all.VMs); got != `[{"name":"vm1"} {"name":"vm2"} {"name":"vm3"}]` {
		t.Errorf("machines %s", got)
	}
	if len(all.Nodes) != 1 || all.Nodes[0].ID != here || all.Nodes[0].Name != "node01" {
		t.Errorf("nodes %+v", all.Nodes)
	}
	if want := []usage.Missing{{ID: silent, Name: "node02"}, {ID: down, Name: "node03"}}; fmt.Sprint(all.Missing) != fmt.Sprint(want) {
		t.Errorf("missing %v, want %v", all.Missing, want)
	}
	none, err := reader().All(t.Context())
	if b, _ := json.Marshal(none); err != nil || string(b) != `{"nodes":[],"vms":[],"missing":[]}` {
		t.Errorf("of no node: %s, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := reader(here).All(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("for a caller that went away: %v", err)
	}
}

func TestOneMachine(t *testing.T) {
	vm := uuid.UUID{9}
	doc, err := reader().VM(t.Context(), here, vm)
	if err != nil || !strings.Contains(string(doc), vm.String()) {
		t.Errorf("%s, %v", doc, err)
	}
	for node, says := range map[uuid.UUID]string{silent: silent.String(), down: "it is down"} {
		_, err := reader().VM(t.Context(), node, vm)
		if p := problem.From(err); p == nil || p.Code != problem.HypervisorUnavailable || !strings.Contains(p.Detail, says) {
			t.Errorf("%v does not say %q", err, says)
		}
	}
}
