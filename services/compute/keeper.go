package compute

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/engine"
	netwire "horcrux/pkg/events/network"
	"horcrux/pkg/eventstore"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
)

// keeper sees to it that the networks of the node are there: what somebody has stopped or undefined is told and brought
// back. It asks again and again, since the protocol library hands on no events of networks.
type keeper struct {
	*Service
	// seen is what was last seen of each network and taken in; of others' too, so that they are asked about once.
	seen  map[uuid.UUID]netwire.State
	again map[uuid.UUID]time.Time // when to try the next time to bring one back
	told  map[uuid.UUID]bool      // the log says why it could not be
	// first says that nothing has been looked at yet. A network that is then not active is what a reboot leaves, which
	// is no news.
	first     bool
	defaulted bool      // it is settled what the network `default` is
	all       time.Time // when to look for networks that are in no list
}

func (s *Service) newKeeper() *keeper {
	return &keeper{
		Service: s, seen: map[uuid.UUID]netwire.State{}, again: map[uuid.UUID]time.Time{}, told: map[uuid.UUID]bool{}, first: true,
	}
}

// keep looks for as long as ctx lasts.
func (k *keeper) keep(ctx context.Context) {
	pause := min(k.Resync, 2*time.Second)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		k.look(ctx)
	}
}

// look looks once, and says why it could not: once for each outage, which whoever watches the machines tells of too.
func (k *keeper) look(ctx context.Context) {
	limited, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	err := k.once(limited)
	switch failed := err != nil && ctx.Err() == nil; {
	case failed && !k.told[uuid.Nil]:
		k.told[uuid.Nil] = true
		k.Log.Warn("look after the networks; it is tried again", "err", err)
	case err == nil:
		k.told[uuid.Nil], k.first = false, false
	}
}

func (k *keeper) once(ctx context.Context) error {
	release, err := k.holdNetworks(ctx)
	if err != nil {
		return err
	}
	defer release()
	asking, cancel := context.WithTimeout(ctx, infoTime)
	defer cancel()
	list, err := k.Networks.NetworkStates(asking)
	if err != nil {
		return err
	}
	there := map[uuid.UUID]network.Seen{}
	for _, n := range list {
		there[n.ID] = n
	}
	wanted := maps.Clone(k.seen)
	for id := range there {
		wanted[id] = ""
	}
	if now := k.Clock(); !now.Before(k.all) {
		holders, err := k.Store.Holders(ctx, netwire.NameScope)
		if err != nil {
			return err
		}
		for _, h := range holders {
			wanted[h.ID()] = ""
		}
		k.all = now.Add(k.Resync)
	}
	var failed []error
	for _, id := range slices.SortedFunc(maps.Keys(wanted), func(a, b uuid.UUID) int { return slices.Compare(a[:], b[:]) }) {
		failed = append(failed, k.observe(ctx, id, there[id]))
	}
	if !k.defaulted {
		failed = append(failed, k.makeDefault(ctx, list))
	}
	return errors.Join(failed...)
}

// observe takes in what was seen of a network, and brings it back where it has to be.
func (k *keeper) observe(ctx context.Context, id uuid.UUID, seen network.Seen) error {
	state, there := seen.State(), seen.Defined || seen.Active
	again, waits := k.again[id]
	if last, ok := k.seen[id]; ok && last == state && (!waits || k.Clock().Before(again)) {
		return nil
	}
	delete(k.seen, id)
	n, err := k.network(ctx, id)
	switch {
	case err != nil:
		return err
	case n.Ended && there:
		return k.clear(ctx, id)
	case n.Intent != nil:
		return nil // its effect looks for itself
	case !n.Lives(k.Node):
		if there {
			k.seen[id] = state // others' are theirs
		}
		return nil
	}
	if state == netwire.StateActive {
		delete(k.again, id)
		return k.record(ctx, id, state, "started", nil)
	}
	if k.first && state == netwire.StateInactive {
		return k.bringBack(ctx, id, n, state)
	}
	cause := map[netwire.State]string{netwire.StateInactive: "stopped", netwire.StateError: "undefined"}[state]
	return errors.Join(k.record(ctx, id, state, cause, nil), k.bringBack(ctx, id, n, state))
}

// record lets the decider take in what was observed.
func (k *keeper) record(ctx context.Context, id uuid.UUID, state netwire.State, cause string, moved *netip.Prefix) error {
	_, err := engine.Observe(ctx, k.engine, k.networkKinds, id, cause,
		network.Observed{Node: k.Node, State: state, Cause: cause, Moved: moved})
	if err != nil {
		return fmt.Errorf("record that network %s is %s: %w", id, state, err)
	}
	k.seen[id] = state
	return nil
}

// bringBack makes a network active again. The reason why it could not is told once, and it is tried again now and then.
func (k *keeper) bringBack(ctx context.Context, id uuid.UUID, n network.Network, state netwire.State) error {
	moved, err := k.raise(ctx, id, n.Spec)
	if err != nil {
		k.tell(id, n.Spec.Name, err)
		k.again[id] = k.Clock().Add(k.Resync)
		return k.record(ctx, id, state, "could not be started", nil)
	}
	delete(k.again, id)
	delete(k.told, id)
	k.Log.Info("brought a network back", "network", n.Spec.Name)
	return k.record(ctx, id, netwire.StateActive, "brought back", moved)
}

func (k *keeper) tell(id uuid.UUID, name string, err error) {
	if !k.told[id] {
		k.told[id] = true
		k.Log.Warn("the node cannot have a network; it is tried again", "network", name, "err", err)
	}
}

// clear removes what is left at the hypervisor of a network that has ended. It touches none without our mark.
func (k *keeper) clear(ctx context.Context, id uuid.UUID) error {
	_, ours, err := k.Networks.DescribeNetwork(ctx, id)
	if err != nil || !ours {
		return err
	}
	k.Log.Info("removed what was left of a network", "network", id)
	return k.Networks.RemoveNetwork(ctx, id)
}

// makeDefault makes the network `default` at the first start of the node, or takes over the one that is there. One that
// was deleted stays so.
func (k *keeper) makeDefault(ctx context.Context, list []network.Seen) error {
	own := netwire.DefaultID(k.Node)
	n, err := k.network(ctx, own)
	if err != nil {
		return err
	}
	if n.Exists {
		k.defaulted = true
		return nil
	}
	var found network.Found
	id := own
	if i := slices.IndexFunc(list, func(s network.Seen) bool { return s.Name == netwire.DefaultName }); i >= 0 {
		id = list[i].ID
		def, _, err := k.Networks.DescribeNetwork(ctx, id)
		if err != nil {
			return err
		}
		found = network.Found{Spec: def.Spec, State: list[i].State()}
	} else if found, err = k.newDefault(ctx, own); err != nil {
		return err
	}
	found.Node = k.Node
	_, err = engine.Observe(ctx, k.engine, k.networkKinds, id, "found", found)
	var taken *eventstore.NameTakenError
	switch {
	case errors.As(err, &taken): // names are one for all nodes
		k.Log.Info("the network default of this node is not recorded: another node's has the name")
	case err != nil:
		return fmt.Errorf("record the network default: %w", err)
	}
	if id != own {
		if _, err := engine.Observe(ctx, k.engine, k.networkKinds, own, "found", network.Yielded{Name: netwire.DefaultName, To: id}); err != nil {
			return fmt.Errorf("record the network default: %w", err)
		}
	}
	k.defaulted = true
	return nil
}

// newDefault makes the network. A node that cannot have it has it inactive.
func (k *keeper) newDefault(ctx context.Context, id uuid.UUID) (found network.Found, err error) {
	host, err := k.host(ctx, id)
	if err != nil {
		return found, err
	}
	spec, fields := network.Plan(id, netwire.CreateData{Name: netwire.DefaultName, Mode: netwire.ModeNAT}, host)
	if fields != nil {
		return found, fmt.Errorf("the network default: %s %s", fields[0].Field, fields[0].Detail)
	}
	moved, err := k.raise(ctx, id, spec)
	switch {
	case errors.Is(err, hypervisor.ErrInvalid), errors.Is(err, hypervisor.ErrPermission), errors.Is(err, hypervisor.ErrUnsupported):
		k.tell(id, spec.Name, err)
		return network.Found{Spec: spec, State: netwire.StateInactive}, nil
	case err != nil:
		return found, err
	}
	if moved != nil {
		spec.IPv4 = moved
	}
	return network.Found{Spec: spec, State: netwire.StateActive}, nil
}
