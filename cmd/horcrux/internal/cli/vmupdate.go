//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"
	"reflect"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"horcrux/pkg/client"
	"horcrux/pkg/openapi"
)

// vmChange is what the flags of vm update say.
type vmChange struct {
	vmHardware
	description           string
	tags, disks, networks []string
	noTags                bool
}

func (a *app) vmUpdate() *cobra.Command {
	var c *change
	v := &vmChange{}
	cmd := a.leaf("update VM", "Change what is given", func(ctx context.Context, s *session, args []string) error {
		body, err := v.body(s.cmd)
		if err != nil {
			return err
		}
		if body.Boot != nil { // what is not given stays, and a PATCH replaces all of it
			now, err := client.Decode[openapi.VM](s.GetVM(ctx, args[0], nil))
			if err != nil {
				return err
			}
			body.Boot = v.boot(s.cmd, &openapi.VMBootCreate{Kernel: now.Boot.Kernel, Initrd: now.Boot.Initrd, Cmdline: now.Boot.Cmdline, ISO: now.Boot.ISO})
		}
		params := &openapi.UpdateVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.UpdateVM(ctx, args[0], params, body)
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Long = "Change what is given. What a running guest cannot take at once is shown as pending and holds from its next start."
	cmd.Example = `  horcrux vm update web-1 --cpus 4 --memory-mb 2048
  horcrux vm update web-1 --network name=nic0,link=down --disk name=disk0,cache=none
  horcrux vm update web-1 --vnc-password-file secret.txt`
	c = a.changing(cmd)
	c.conditional(cmd)
	f := cmd.Flags()
	f.StringVar(&v.description, "description", "", "what it is for")
	f.StringArrayVar(&v.tags, "tag", nil, "a tag in place of those it has; may be repeated")
	f.BoolVar(&v.noTags, "no-tags", false, "take all tags away")
	v.flags(f)
	f.VisitAll(func(flag *pflag.Flag) { // what is left out stays as it is, and is no default
		if zero, ok := map[string]string{"int": "0", "int64": "0", "bool": "false"}[flag.Value.Type()]; ok {
			flag.DefValue = zero
		}
	})
	f.StringArrayVar(&v.disks, "disk", nil, "name=,bus=,boot_order=,cache=,discard= of a disk that it has; may be repeated")
	f.StringArrayVar(&v.networks, "network", nil, "name=,network=,model=,mac=,mtu=,link=,boot_order= of a NIC that it has; may be repeated")
	return cmd
}

func (v *vmChange) body(cmd *cobra.Command) (openapi.VMUpdate, error) {
	body := openapi.VMUpdate{
		Description: given(cmd, "description", v.description), Tags: v.tags, CPUs: given(cmd, "cpus", v.cpus), MaxCPUs: given(cmd, "max-cpus", v.maxCPUs),
		MemoryMB: given(cmd, "memory-mb", v.memory), CPUModel: given(cmd, "cpu-model", v.cpuModel),
		Machine: given(cmd, "machine", openapi.Machine(v.machine)), Firmware: given(cmd, "firmware", openapi.Firmware(v.firmware)),
		SecureBoot: given(cmd, "secure-boot", v.secureBoot), TPM: given(cmd, "tpm", v.tpm), Serial: given(cmd, "serial", v.serial),
		Agent: given(cmd, "agent", v.agent), RNG: given(cmd, "rng", v.rng), Autostart: given(cmd, "autostart", v.autostart),
		OnDrift: given(cmd, "on-drift", openapi.OnDrift(v.onDrift)), Boot: v.boot(cmd, nil),
	}
	if v.noTags && v.tags != nil {
		return body, &usageError{cmd, "--tag and --no-tags exclude one another"}
	}
	if v.noTags {
		body.Tags = []string{}
	}
	enabled, password, err := v.screen(cmd)
	if err != nil {
		return body, err
	}
	if enabled != nil || password != nil {
		body.VNC = &openapi.VMVNCUpdate{Enabled: enabled, Password: password}
	}
	if err := parseEach(cmd, "disk", "name", v.disks, &body.Disks); err != nil {
		return body, err
	}
	if err := parseEach(cmd, "network", "name", v.networks, &body.Networks); err != nil {
		return body, err
	}
	if reflect.DeepEqual(body, openapi.VMUpdate{}) {
		return body, &usageError{cmd, "give a flag that says what is to change"}
	}
	return body, nil
}

func (a *app) vmDisk() *cobra.Command {
	return group("disk", "Disks of a virtual machine", a.vmDiskAttach(), a.vmDiskDetach(), a.vmDiskResize())
}

func (a *app) vmDiskAttach() *cobra.Command {
	var c *change
	cmd := a.leaf("attach VM DISK", "Add a disk", func(ctx context.Context, s *session, args []string) error {
		var items []openapi.VMDiskCreate
		if err := parseEach(s.cmd, "disk", "size_gb", args[1:], &items); err != nil {
			return err
		}
		params := &openapi.AttachVMDiskParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.AttachVMDisk(ctx, args[0], params, items[0])
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Long = "Add a disk: its size in GiB, or pool=,size_gb=,format=,image=,bus=,boot_order=,cache=,discard=."
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}

func (a *app) vmDiskDetach() *cobra.Command {
	var c *change
	var keep bool
	cmd := a.leaf("detach VM DISK", "Remove a disk and its volume", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.DetachVMDiskParams{Keep: given(s.cmd, "keep", keep), Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.DetachVMDisk(ctx, args[0], args[1], params)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().BoolVar(&keep, "keep", false, "keep its volume")
	return cmd
}

func (a *app) vmDiskResize() *cobra.Command {
	var c *change
	cmd := a.leaf("resize VM DISK SIZE", "Make a disk larger, SIZE in GiB", func(ctx context.Context, s *session, args []string) error {
		size, err := strconv.ParseInt(args[2], 10, 64)
		if err != nil {
			return &usageError{s.cmd, "SIZE is a number of GiB, not " + strconv.Quote(args[2])}
		}
		params := &openapi.ResizeVMDiskParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.ResizeVMDisk(ctx, args[0], args[1], params, openapi.VMDiskResize{SizeGB: size})
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}

func (a *app) vmNIC() *cobra.Command {
	return group("nic", "Network interfaces of a virtual machine", a.vmNICAttach(), a.vmNICDetach())
}

func (a *app) vmNICAttach() *cobra.Command {
	var c *change
	cmd := a.leaf("attach VM NETWORK", "Add a network interface", func(ctx context.Context, s *session, args []string) error {
		var items []openapi.VMNICCreate
		if err := parseEach(s.cmd, "network", "network", args[1:], &items); err != nil {
			return err
		}
		params := &openapi.AttachVMNICParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.AttachVMNIC(ctx, args[0], params, items[0])
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Long = "Add a network interface: the name of its network, or network=,model=,mac=,mtu=,link=,boot_order=."
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}

func (a *app) vmNICDetach() *cobra.Command {
	var c *change
	cmd := a.leaf("detach VM NIC", "Remove a network interface", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.DetachVMNICParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.DetachVMNIC(ctx, args[0], args[1], params)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}
