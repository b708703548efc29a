package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
	"horcrux/pkg/problem"
	wire "horcrux/pkg/usage"
	"horcrux/services/compute/hypervisor"
)

// Bus carries questions to a node.
type Bus interface {
	Serve(ctx context.Context, domain string, node uuid.UUID, method string, answer func(context.Context, json.RawMessage) (any, error)) error
}

// pageSize is how many bytes of machines a page holds, so that any NATS server takes it.
const pageSize = 512 << 10

// Serve answers for a node until ctx ends. Run has to run.
func (s *Sampler) Serve(ctx context.Context, b Bus, domain string, node uuid.UUID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	methods := map[string]method{
		wire.VMMethod: s.vm, wire.VMHistoryMethod: s.vmHistory, wire.NodeMethod: s.page, wire.NodeHistoryMethod: s.nodeHistory,
	}
	ended := make(chan error, len(methods))
	for name, m := range methods {
		go func() { // waited for below
			defer cancel() // all or none
			ended <- b.Serve(ctx, domain, node, name, m.answer(node))
		}()
	}
	var errs []error
	for range methods {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}

// method answers a question to a node.
type method func(ctx context.Context, node uuid.UUID, q wire.Question) (any, error)

func (m method) answer(node uuid.UUID) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, data json.RawMessage) (any, error) {
		var q wire.Question
		if err := json.Unmarshal(data, &q); err != nil {
			return nil, problem.New(problem.MalformedRequest, "a question that cannot be read")
		}
		return m(ctx, node, q)
	}
}

// now is a fresh look, or why there is none. The driver's own words are for the log.
func (s *Sampler) now(ctx context.Context) (*look, error) {
	l, err := s.look(ctx)
	if err != nil {
		s.log.Debug("no look at what guests use", "err", err)
		return nil, unavailable()
	}
	return l, nil
}

func missing(id uuid.UUID) *problem.Problem {
	return problem.New(problem.NotFound, "the hypervisor knows no virtual machine %s", id)
}

func (s *Sampler) vm(ctx context.Context, node uuid.UUID, q wire.Question) (any, error) {
	l, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	d := l.domains[q.VM]
	if d == nil {
		return nil, missing(q.VM)
	}
	return d.wire(node, l.at), nil
}

func (s *Sampler) vmHistory(_ context.Context, _ uuid.UUID, q wire.Question) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.domains[q.VM]
	if r == nil {
		return nil, missing(q.VM)
	}
	return s.hour(q.VM, r), nil
}

func (s *Sampler) nodeHistory(_ context.Context, node uuid.UUID, _ wire.Question) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hour(node, &s.node), nil
}

// hour needs s.mu.
func (s *Sampler) hour(id uuid.UUID, r *ring) wire.History {
	h := wire.NoHistory(id)
	h.Items = r.since(s.clock().Add(-time.Hour))
	return h
}

func (s *Sampler) page(ctx context.Context, node uuid.UUID, q wire.Question) (any, error) {
	l, err := s.now(ctx)
	if err != nil {
		return nil, err
	}
	p := wire.Page{Node: l.node, VMs: []json.RawMessage{}}
	p.Node.ID = node
	first, _ := slices.BinarySearchFunc(l.ids, q.After, func(id, after uuid.UUID) int {
		if bytes.Compare(id[:], after[:]) <= 0 {
			return -1
		}
		return 1
	})
	size := 0
	for i, id := range l.ids[first:] {
		doc, err := json.Marshal(l.domains[id].wire(node, l.at))
		if err != nil {
			return nil, fmt.Errorf("usage of %s: %w", id, err)
		}
		if size += len(doc); size > pageSize && i > 0 {
			p.Next = &l.ids[first+i-1]
			break
		}
		p.VMs = append(p.VMs, doc)
	}
	return p, nil
}

// wire is a domain as the API shows it.
func (d *Domain) wire(node uuid.UUID, at time.Time) wire.VM {
	v := wire.VM{
		ID: d.ID, Name: d.Name, Node: node, State: d.state(), At: at.UTC().Truncate(time.Millisecond),
		CPU: d.CPU, Memory: d.Memory, Disks: d.Disks, NICs: d.NICs,
	}
	if v.Disks == nil {
		v.Disks = []wire.Disk{}
	}
	if v.NICs == nil {
		v.NICs = []wire.NIC{}
	}
	return v
}

// state as machines have it.
func (d *Domain) state() vm.State {
	switch d.State {
	case hypervisor.Running:
		return vm.StateRunning
	case hypervisor.Paused:
		return vm.StatePaused
	case hypervisor.Off, hypervisor.Crashed:
		return vm.StateStopped
	}
	return vm.StateUnknown
}
