package compute

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	"horcrux/pkg/events"
	netwire "horcrux/pkg/events/network"
	vmwire "horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/problem"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
	"horcrux/services/compute/vm"
)

// loadAtOnce is how many objects are loaded in one question to the store.
const loadAtOnce = 100

// networkKind binds the decider of networks to commands and effects.
func (s *Service) networkKind() *engine.Kind[network.Network] {
	return &engine.Kind[network.Network]{
		Codec:   netwire.Codec,
		Decider: network.Decider,
		Intent:  network.Intent,
		Names:   network.Names,
		Perform: s.performNetwork,
		Failed:  s.networkFailed,
		Commands: map[string]engine.Command[network.Network]{
			"create": {Creates: true, Decode: decodeNetworkCreate, Prepare: s.prepareNetwork},
			"delete": {Decode: decodeNetworkDelete, Prepare: s.prepareNetworkDelete},
		},
	}
}

// networkCreate is a create in the making: the decider gets Create.
type networkCreate struct {
	network.Create
	data netwire.CreateData
}

func decodeNetworkCreate(c events.Command) (any, error) {
	data, err := engine.StrictData[netwire.CreateData](c)
	return networkCreate{data: data, Create: network.Create{Intent: c.Intent()}}, err
}

func decodeNetworkDelete(c events.Command) (any, error) {
	return network.Delete{Intent: c.Intent()}, nil
}

// prepareNetwork fills in what a create leaves open from what the node has. What the node cannot have is a rejection that
// names the field.
func (s *Service) prepareNetwork(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(networkCreate)
	if _, err := s.info(ctx); err != nil {
		return nil, err
	}
	host, err := s.host(ctx, cmd.Target)
	if err != nil {
		return nil, err
	}
	spec, fields := network.Plan(cmd.Target, c.data, host)
	if fields != nil {
		return nil, problem.Invalid(fields...)
	}
	c.Spec, c.Node = spec, s.Node
	return c.Create, nil
}

// host is what the node has of interfaces and addresses, and what its networks but one are to have.
func (s *Service) host(ctx context.Context, but uuid.UUID) (network.Host, error) {
	h, err := s.Host()
	if err != nil {
		return h, fmt.Errorf("look at the node's interfaces: %w", err)
	}
	known, err := s.knownNetworks(ctx)
	if err != nil {
		return h, err
	}
	for id, n := range known {
		if id == but || n.Node != s.Node || n.Spec.Mode == netwire.ModeBridge {
			continue
		}
		h.Links[n.Spec.Bridge] = false
		for _, p := range network.Ranges(n.Spec) {
			h.Used = append(h.Used, network.Use{Prefix: p.Masked(), By: "the network " + n.Spec.Name})
		}
	}
	return h, nil
}

// knownNetworks are those that live.
func (s *Service) knownNetworks(ctx context.Context) (map[uuid.UUID]network.Network, error) {
	known := map[uuid.UUID]network.Network{}
	err := s.living(ctx, netwire.NameScope, func(h eventstore.History) error {
		n, err := network.Decider.Fold(netwire.Codec, h)
		known[h.Stream.ID()] = n
		return err
	})
	return known, err
}

// living calls f with the history of every object that has a name in a scope.
func (s *Service) living(ctx context.Context, scope string, f func(eventstore.History) error) error {
	streams, err := s.Store.Holders(ctx, scope)
	if err != nil {
		return err
	}
	for some := range slices.Chunk(streams, loadAtOnce) {
		histories, err := s.Store.Load(ctx, some...)
		if err != nil {
			return err
		}
		for _, h := range histories {
			if err := f(h); err != nil {
				return err
			}
		}
	}
	return nil
}

// prepareNetworkDelete looks up who uses the network.
func (s *Service) prepareNetworkDelete(ctx context.Context, cmd events.Command, decoded any) (any, error) {
	c := decoded.(network.Delete)
	if _, err := s.info(ctx); err != nil {
		return nil, err
	}
	n, err := s.network(ctx, cmd.Target)
	if err != nil || !n.Lives(s.Node) {
		return c, err // the decider says no
	}
	c.Users, err = s.networkUsers(ctx, cmd.Target, n.Spec.Name)
	return c, err
}

// network loads a network.
func (s *Service) network(ctx context.Context, id uuid.UUID) (network.Network, error) {
	h, err := s.Store.Load(ctx, events.NewStream(netwire.Kind, id))
	if err != nil {
		return network.Network{}, err
	}
	return network.Decider.Fold(netwire.Codec, h[0])
}

// networkUsers are the machines that have an interface on a network, whether they run or not, and the guests that run
// there and are not ours.
func (s *Service) networkUsers(ctx context.Context, id uuid.UUID, name string) ([]string, error) {
	asking, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	users, err := s.Networks.NetworkGuests(asking, id)
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		s.Log.Warn("ask the hypervisor who is on a network", "network", name, "err", err)
		return nil, unavailable()
	}
	err = s.living(ctx, vmwire.NameScope, func(h eventstore.History) error {
		m, err := vm.Decider.Fold(vmwire.Codec, h)
		on := slices.ContainsFunc(m.Spec.Networks, func(n vmwire.NIC) bool { return n.Network == name })
		if on && m.Node == s.Node {
			users = append(users, m.Spec.Name)
		}
		return err
	})
	slices.Sort(users)
	return slices.Compact(users), err
}

// holdNetworks takes the turn to change networks at the hypervisor. Effects and the keeper take turns: what the one
// looks at, the other does not change meanwhile.
func (s *Service) holdNetworks(ctx context.Context) (release func(), err error) {
	select {
	case s.netTurn <- struct{}{}:
		return func() { <-s.netTurn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// performNetwork brings about the effect of a network's intent.
func (s *Service) performNetwork(ctx context.Context, id uuid.UUID, n network.Network) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	release, err := s.holdNetworks(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	switch n.Intent.Type {
	case "network.create":
		moved, err := s.raise(ctx, id, n.Spec)
		return network.Made{Moved: moved}, networkError(err)
	case "network.delete":
		users, err := s.networkUsers(ctx, id, n.Spec.Name) // a machine may have been made since it was decided
		switch {
		case problem.From(err) != nil:
			return nil, fmt.Errorf("%w: %w", engine.ErrAgain, err)
		case err != nil:
			return nil, err
		case len(users) > 0:
			return nil, network.InUse(users)
		}
		return network.Removed{}, networkError(s.Networks.RemoveNetwork(ctx, id))
	}
	return nil, fmt.Errorf("no effect for intent %s", n.Intent.Type)
}

// raise makes a network active. Where its range was the node's choice and has been taken, it gets another: moved.
func (s *Service) raise(ctx context.Context, id uuid.UUID, spec netwire.Spec) (moved *netip.Prefix, err error) {
	const attempts = 4 // somebody may take what was free a moment ago
	var failed []error
	for range attempts {
		err := s.Networks.DefineNetwork(ctx, network.Definition{ID: id, Spec: spec})
		if err == nil {
			err = s.Networks.StartNetwork(ctx, id)
		}
		if err == nil {
			return moved, nil
		}
		failed = append(failed, err)
		if !spec.Chosen || !errors.Is(err, hypervisor.ErrInvalid) {
			break
		}
		host, err := s.host(ctx, id)
		if err != nil {
			failed = append(failed, err)
			break
		}
		free, ok := network.Free(id, host)
		if !ok || !host.Overlaps(*spec.IPv4) {
			break // it was not the range
		}
		moved, spec.IPv4 = &free, &free
	}
	return nil, errors.Join(failed...)
}

// networkFailed takes back what a create has left at the hypervisor. What cannot be taken back now the keeper finds.
func (s *Service) networkFailed(ctx context.Context, id uuid.UUID, n network.Network, p *problem.Problem) any {
	ctx, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	if n.State == netwire.StateCreating {
		if err := s.takeBackNetwork(ctx, id); err != nil {
			s.Log.Warn("take a network back that could not be made; it is tried again", "network", id, "err", err)
		}
	}
	return network.Failed{Problem: p}
}

func (s *Service) takeBackNetwork(ctx context.Context, id uuid.UUID) error {
	release, err := s.holdNetworks(ctx)
	if err != nil {
		return err
	}
	defer release()
	return s.Networks.RemoveNetwork(ctx, id)
}

// networkError says what a driver's failure means for the effect, as driverError does of machines.
func networkError(err error) error {
	switch {
	case errors.Is(err, hypervisor.ErrAlreadyExists):
		p := problem.New(problem.NameTaken, "the hypervisor has a network of that name which is not ours")
		p.Fields = []problem.Field{{Field: "name", Detail: "is taken at the hypervisor"}}
		return fmt.Errorf("%w: %w", p, err)
	case errors.Is(err, hypervisor.ErrInvalid), errors.Is(err, hypervisor.ErrUnsupported), errors.Is(err, hypervisor.ErrPermission):
		return fmt.Errorf("%w: %w", problem.New(problem.EffectFailed, "the node cannot have this network; the operation's log says why"), err)
	}
	return driverError(err)
}
