//go:build !no_qemu

package serve

import (
	"context"
	"fmt"
	"path/filepath"

	"horcrux/services/compute"
	"horcrux/services/compute/console"
	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/accel"
	"horcrux/services/compute/hypervisor/libvirt"
	"horcrux/services/compute/hypervisor/libvirt/libvirtd"
	"horcrux/services/compute/hypervisor/traced"
	"horcrux/services/compute/usage"
)

// systemURI is libvirt's own default.
const systemURI = "qemu:///system"

// Hook takes over a process that a private libvirtd is started through. It comes first in main.
func Hook() { libvirtd.Hook() }

func (s *server) compute(ctx context.Context) error {
	if !s.serves(compute.Domain) {
		return nil
	}
	if s.config.Accelerator == "auto" {
		fmt.Fprintln(s.out, "finding out whether KVM works here; the first time this can take half a minute")
	}
	how, err := accel.Probe(ctx, accel.Options{
		Override: s.config.Accelerator, Kernels: s.imageDirs(), CacheFile: filepath.Join(s.dir.Root, "accelerator.json"),
		Logger: s.log.With("part", "accelerator"),
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(s.out, "guests run with %s: %s\n", how.Accelerator, how.Reason)
	options := libvirt.Options{ConsoleDir: s.dir.Consoles(), Logger: s.log.With("part", "libvirt")}
	if err := s.libvirt(ctx, how.Accelerator, &options); err != nil {
		return err
	}
	driver, err := libvirt.Open(options)
	if err != nil {
		return err
	}
	s.stack.push("libvirt connection", func(context.Context) error { return driver.Close() })
	// What guests use is asked for on a connection of its own, since an emulator that hangs may cost it.
	watched, err := libvirt.Open(libvirt.Options{URI: options.URI, CallTimeout: usage.CallTime, Logger: s.log.With("part", "usage")})
	if err != nil {
		return err
	}
	s.stack.push("libvirt connection for usage", func(context.Context) error { return watched.Close() })
	svc := compute.New(compute.Options{
		Node: s.node, Store: s.store, Bus: s.bus, Driver: traced.Driver(driver), Metrics: s.effort, Networks: driver, Usage: watched, ImageDirs: s.imageDirs(), Log: s.log.With("part", compute.Domain),
		Accelerator: how.Accelerator, Secrets: s.vault,
	})
	s.seen = append(s.seen, svc.Collectors()...)
	s.stack.run(compute.Domain, svc.Run)
	s.offer(compute.Domain, "hypervisor", svc.Ready)
	s.stack.run("consoles", console.New(console.Options{
		Node: s.node, Bus: s.bus, Driver: driver, LogDir: s.dir.Consoles(), Log: s.log.With("part", "consoles"),
	}).Run)
	return nil
}

// libvirt says which libvirtd is driven and where its files are, and starts a private one where that is asked for or nobody
// answers.
func (s *server) libvirt(ctx context.Context, accelerator hypervisor.Accelerator, o *libvirt.Options) error {
	c := s.config.Libvirt
	if o.URI = c.URI; o.URI == "" {
		o.URI = systemURI
	}
	if c.Private == "no" || c.Private == "auto" && (c.URI != "" || answers(ctx, o.URI)) {
		return nil
	}
	d, err := libvirtd.Start(ctx, libvirtd.Options{
		Dir: s.dir.Libvirt(), SocketDir: s.dir.LibvirtSockets(), KVM: accelerator == hypervisor.KVM,
		Logger: s.log.With("part", "libvirtd"),
	})
	if err != nil {
		return fmt.Errorf("start a private libvirtd: %w", err)
	}
	s.stack.push("libvirtd", d.Stop)
	fmt.Fprintf(s.out, "private libvirtd; reach it with: virsh -c '%s'\n", d.URI())
	o.URI, o.Outside, o.Mutations = d.URI(), d.Outside, libvirtd.Mutations
	return nil
}

// answers says whether a libvirtd is there.
func answers(ctx context.Context, uri string) bool {
	driver, err := libvirt.Open(libvirt.Options{URI: uri})
	if err != nil {
		return false
	}
	defer driver.Close()
	_, err = driver.Info(ctx)
	return err == nil
}
