//go:build !no_qemu

package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"slices"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/network"
)

var _ network.Driver = (*Driver)(nil)

// handleNetwork names a network to the daemon, which looks at the UUID alone.
func handleNetwork(id uuid.UUID) golibvirt.Network {
	return golibvirt.Network{UUID: golibvirt.UUID(id)}
}

// DefineNetwork implements network.Driver.
func (d *Driver) DefineNetwork(ctx context.Context, def network.Definition) error {
	text, err := networkDocument(def)
	if err != nil {
		return fmt.Errorf("define network %s: %w", def.ID, err)
	}
	err = d.do(ctx, func(l *golibvirt.Libvirt) error {
		n, err := l.NetworkDefineXML(text)
		if err != nil {
			return err
		}
		return l.NetworkSetAutostart(n, 1)
	})
	if errors.Is(err, hypervisor.ErrInvalid) && d.networkNameTaken(ctx, def) {
		err = fmt.Errorf("%w: %w", hypervisor.ErrAlreadyExists, errors.Unwrap(err))
	}
	if err != nil {
		return fmt.Errorf("define network %s: %w", def.ID, err)
	}
	return nil
}

// networkNameTaken looks whether it was the name that made libvirt refuse: it has no number for that.
func (d *Driver) networkNameTaken(ctx context.Context, def network.Definition) bool {
	holder, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (golibvirt.Network, error) {
		return l.NetworkLookupByName(def.Name)
	})
	return err == nil && uuid.UUID(holder.UUID) != def.ID
}

// StartNetwork implements network.Driver.
func (d *Driver) StartNetwork(ctx context.Context, id uuid.UUID) error {
	err := d.do(ctx, func(l *golibvirt.Libvirt) error { return l.NetworkCreate(handleNetwork(id)) })
	if refused(err) && d.networkIsActive(ctx, id) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("start network %s: %w", id, err)
	}
	return nil
}

func (d *Driver) networkIsActive(ctx context.Context, id uuid.UUID) bool {
	active, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (int32, error) { return l.NetworkIsActive(handleNetwork(id)) })
	return err == nil && active != 0
}

// RemoveNetwork implements network.Driver. A network that is not defined vanishes when it is stopped.
func (d *Driver) RemoveNetwork(ctx context.Context, id uuid.UUID) error {
	err := d.do(ctx, func(l *golibvirt.Libvirt) error { return l.NetworkDestroy(handleNetwork(id)) })
	if err == nil || refused(err) && !d.networkIsActive(ctx, id) {
		err = d.do(ctx, func(l *golibvirt.Libvirt) error { return l.NetworkUndefine(handleNetwork(id)) })
	}
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		return fmt.Errorf("remove network %s: %w", id, err)
	}
	return nil
}

// NetworkStates implements network.Driver.
func (d *Driver) NetworkStates(ctx context.Context) ([]network.Seen, error) {
	seen, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (seen []network.Seen, err error) {
		const all = 1 // any number but 0: the list itself, and not only its length
		defined, _, err := l.ConnectListAllNetworks(all, golibvirt.ConnectListNetworksPersistent)
		if err != nil {
			return nil, err
		}
		active, _, err := l.ConnectListAllNetworks(all, golibvirt.ConnectListNetworksActive)
		if err != nil {
			return nil, err
		}
		for _, n := range defined {
			seen = append(seen, network.Seen{ID: uuid.UUID(n.UUID), Name: n.Name, Defined: true})
		}
		for _, n := range active {
			id := uuid.UUID(n.UUID)
			if i := slices.IndexFunc(seen, func(s network.Seen) bool { return s.ID == id }); i >= 0 {
				seen[i].Active = true
			} else {
				seen = append(seen, network.Seen{ID: id, Name: n.Name, Active: true})
			}
		}
		return seen, nil
	})
	if err != nil {
		return nil, fmt.Errorf("observe networks: %w", err)
	}
	return seen, nil
}

// DescribeNetwork implements network.Driver.
func (d *Driver) DescribeNetwork(ctx context.Context, id uuid.UUID) (network.Definition, bool, error) {
	text, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (string, error) {
		return l.NetworkGetXMLDesc(handleNetwork(id), 0)
	})
	if err != nil {
		return network.Definition{}, false, fmt.Errorf("describe network %s: %w", id, err)
	}
	def, ours, err := parseNetwork(text)
	if err != nil {
		return network.Definition{}, false, fmt.Errorf("describe network %s: %w", id, err)
	}
	return def, ours, nil
}

// NetworkGuests implements network.Driver. A libvirt before 5.5, and its test driver, do not tell.
func (d *Driver) NetworkGuests(ctx context.Context, id uuid.UUID) ([]string, error) {
	guests, err := call(ctx, d, look, func(l *golibvirt.Libvirt) (guests []string, err error) {
		ports, _, err := l.NetworkListAllPorts(handleNetwork(id), 1, 0)
		if err != nil {
			return nil, err
		}
		for _, p := range ports {
			text, err := l.NetworkPortGetXMLDesc(p, 0)
			if err != nil {
				return nil, err
			}
			var port struct {
				Owner struct {
					Name string `xml:"name"`
				} `xml:"owner"`
			}
			if err := xml.Unmarshal([]byte(text), &port); err != nil {
				return nil, fmt.Errorf("a port: %w", err)
			}
			guests = append(guests, port.Owner.Name)
		}
		slices.Sort(guests)
		return slices.Compact(guests), nil
	})
	if errors.Is(err, hypervisor.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("guests on network %s: %w", id, err)
	}
	return guests, nil
}
