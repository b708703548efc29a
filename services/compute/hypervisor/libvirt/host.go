//go:build !no_qemu

package libvirt

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"sync"

	golibvirt "github.com/digitalocean/go-libvirt"

	"horcrux/services/compute/hypervisor"
)

// capabilities is what a connection learns once, when it is asked: the daemon may have to run QEMU to find out.
type capabilities struct {
	mu    sync.Mutex
	known bool
	info  hypervisor.Info
}

// learn fills in what does not change. It runs within one exchange.
func (c *capabilities) learn(kind string, l *golibvirt.Libvirt) (hypervisor.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		return c.info, nil
	}
	version, err := l.ConnectGetVersion()
	if err != nil {
		return hypervisor.Info{}, err
	}
	info := hypervisor.Info{
		Name:    kind,
		Version: fmt.Sprintf("%d.%d.%d", version/1e6, version/1e3%1e3, version%1e3),
	}
	if kind == "test" { // it has guests of one kind and tells nothing of them
		n, err := l.ConnectGetMaxVcpus(golibvirt.OptString{"test"})
		if err != nil {
			return hypervisor.Info{}, err
		}
		info.MaxCPUs, info.Accelerators = int(n), []hypervisor.Accelerator{hypervisor.TCG}
	} else if err := ofQEMU(l, &info); err != nil {
		return hypervisor.Info{}, err
	}
	c.known, c.info = true, info
	return info, nil
}

func ofQEMU(l *golibvirt.Libvirt, info *hypervisor.Info) error {
	for _, a := range []hypervisor.Accelerator{hypervisor.KVM, hypervisor.TCG} {
		text, err := l.ConnectGetDomainCapabilities(nil, golibvirt.OptString{arch}, nil,
			golibvirt.OptString{domainType[a]}, 0)
		if answers(err, hypervisor.ErrInvalid) || answers(err, hypervisor.ErrUnsupported) {
			continue // not with this QEMU on this node
		}
		if err != nil {
			return err
		}
		cpus, err := maxCPUs(text)
		if err != nil {
			return err
		}
		info.MaxCPUs = max(info.MaxCPUs, cpus)
		info.Accelerators = append(info.Accelerators, a)
	}
	return nil
}

// maxCPUs of one guest, as domain capabilities tell it; 0 where they do not.
func maxCPUs(capabilities string) (int, error) {
	var caps struct {
		VCPU struct {
			Max int `xml:"max,attr"`
		} `xml:"vcpu"`
	}
	if err := xml.Unmarshal([]byte(capabilities), &caps); err != nil {
		return 0, fmt.Errorf("domain capabilities: %w", err)
	}
	return caps.VCPU.Max, nil
}

// Networks implements hypervisor.Driver: those that are active. A daemon without a network driver has none.
func (d *Driver) Networks(ctx context.Context) ([]string, error) {
	const all = 1 // any number but 0: the list itself, and not only its length
	names, err := call(ctx, d, look, func(l *golibvirt.Libvirt) ([]string, error) {
		found, _, err := l.ConnectListAllNetworks(all, golibvirt.ConnectListNetworksActive)
		names := make([]string, len(found))
		for i, n := range found {
			names[i] = n.Name
		}
		return names, err
	})
	if errors.Is(err, hypervisor.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("networks: %w", err)
	}
	return names, nil
}

// Info implements hypervisor.Driver.
func (d *Driver) Info(ctx context.Context) (hypervisor.Info, error) {
	s, err := d.session(ctx)
	if err != nil {
		return hypervisor.Info{}, fmt.Errorf("info: %w", err)
	}
	info, err := exchange(ctx, s, look, func(l *golibvirt.Libvirt) (hypervisor.Info, error) {
		info, err := s.caps.learn(s.kind, l)
		if err != nil {
			return info, err
		}
		_, kib, cpus, _, _, _, _, _, err := l.NodeGetInfo()
		info.CPUs, info.MemoryMB = int(cpus), int64(kib>>10)
		return info, err
	})
	if err != nil {
		return hypervisor.Info{}, fmt.Errorf("info: %w", err)
	}
	return info, nil
}
