// Package telemetry asks the nodes of the installation for what is not recorded: what they and their virtual machines use,
// and which guests others made.
package telemetry

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	"horcrux/pkg/usage"
)

// askTime bounds one question: as long as a node may take to answer, and a little.
const askTime = 11 * time.Second

// Bus carries questions to nodes.
type Bus interface {
	Call(ctx context.Context, domain string, node uuid.UUID, method string, request, result any) error
}

// Node is one that may be asked.
type Node struct {
	ID   uuid.UUID
	Name string
}

// Reader asks. Its failures are problems: of the node, or that it does not answer.
type Reader struct {
	Bus   Bus
	Nodes func() []Node // those with a compute service, also one that fell silent
	Log   *slog.Logger
}

// VM is the usage.VM of a machine as JSON.
func (r Reader) VM(ctx context.Context, node, id uuid.UUID) (json.RawMessage, error) {
	return r.ask(ctx, node, usage.VMMethod, usage.Question{VM: id})
}

// VMHistory is the usage.History of a machine as JSON.
func (r Reader) VMHistory(ctx context.Context, node, id uuid.UUID) (json.RawMessage, error) {
	return r.ask(ctx, node, usage.VMHistoryMethod, usage.Question{VM: id})
}

// NodeHistory is the usage.History of a node as JSON.
func (r Reader) NodeHistory(ctx context.Context, node uuid.UUID) (json.RawMessage, error) {
	return r.ask(ctx, node, usage.NodeHistoryMethod, usage.Question{})
}

// ask asks a node. What is no problem of its own means that it does not answer.
func (r Reader) ask(ctx context.Context, node uuid.UUID, method string, q usage.Question) (answer json.RawMessage, err error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	err = r.Bus.Call(ctx, vm.Resource.Domain, node, method, q, &answer)
	if p := problem.From(err); err == nil || p != nil && p.Code != problem.Unavailable {
		return answer, err
	}
	r.Log.Debug("a node does not answer", "node", node, "method", method, "err", err)
	return nil, problem.New(problem.HypervisorUnavailable, "node %s does not answer", node)
}

// gather asks every node at once. Those that do not answer are missing.
func gather[T any](ctx context.Context, r Reader, ask func(context.Context, Node) (T, error)) (parts []T, missing []usage.Missing, err error) {
	nodes := r.Nodes()
	answers, errs := make([]T, len(nodes)), make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		wg.Go(func() { answers[i], errs[i] = ask(ctx, n) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, nil, err // whoever is missing may not be
	}
	missing = []usage.Missing{}
	for i, err := range errs {
		if err != nil {
			r.Log.Debug("the answer of a node is missing", "node", nodes[i].ID, "err", err)
			missing = append(missing, usage.Missing{ID: nodes[i].ID, Name: nodes[i].Name})
			continue
		}
		parts = append(parts, answers[i])
	}
	return parts, missing, nil
}

// All asks every node at once. Those that do not answer are missing.
func (r Reader) All(ctx context.Context) (usage.All, error) {
	type part struct {
		node usage.Node
		vms  []json.RawMessage
	}
	parts, missing, err := gather(ctx, r, func(ctx context.Context, n Node) (p part, err error) {
		p.node, p.vms, err = r.node(ctx, n)
		return p, err
	})
	if err != nil {
		return usage.All{}, err
	}
	all := usage.All{Nodes: []usage.Node{}, VMs: []json.RawMessage{}, Missing: missing}
	for _, p := range parts {
		all.Nodes = append(all.Nodes, p.node)
		all.VMs = append(all.VMs, p.vms...)
	}
	return all, nil
}

// node asks one node for all it knows, page by page.
func (r Reader) node(ctx context.Context, n Node) (node usage.Node, vms []json.RawMessage, err error) {
	var q usage.Question
	for {
		answer, err := r.ask(ctx, n.ID, usage.NodeMethod, q)
		if err != nil {
			return node, nil, err
		}
		var p usage.Page
		if err := json.Unmarshal(answer, &p); err != nil {
			return node, nil, fmt.Errorf("the answer of node %s: %w", n.ID, err)
		}
		p.Node.Name = n.Name
		vms = append(vms, p.VMs...)
		if p.Next == nil || *p.Next == q.After {
			return p.Node, vms, nil
		}
		q.After = *p.Next
	}
}

// Unknown is the usage of a machine that no hypervisor knows, as one that is being made.
func Unknown(v vm.View, at time.Time) usage.VM {
	return usage.VM{ID: v.ID, Name: v.Name, Node: v.Node, State: v.State, At: at, Disks: []usage.Disk{}, NICs: []usage.NIC{}}
}
