//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"context"

	"github.com/spf13/cobra"

	"horcrux/pkg/openapi"
)

// vmPower is a command that changes the power of a virtual machine and needs nothing but its name.
func (a *app) vmPower(use, short string, call func(context.Context, *session, string, *change) error) *cobra.Command {
	var c *change
	cmd := a.leaf(use+" VM", short, func(ctx context.Context, s *session, args []string) error {
		return call(ctx, s, args[0], c)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	return cmd
}

func (a *app) vmStart() *cobra.Command {
	return a.vmPower("start", "Start a virtual machine", func(ctx context.Context, s *session, vm string, c *change) error {
		resp, err := s.StartVM(ctx, vm, &openapi.StartVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()})
		return s.finish(ctx, vm, resp, err)
	})
}

func (a *app) vmPause() *cobra.Command {
	return a.vmPower("pause", "Hold the CPUs of a virtual machine", func(ctx context.Context, s *session, vm string, c *change) error {
		resp, err := s.PauseVM(ctx, vm, &openapi.PauseVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()})
		return s.finish(ctx, vm, resp, err)
	})
}

func (a *app) vmResume() *cobra.Command {
	return a.vmPower("resume", "Let a paused virtual machine go on", func(ctx context.Context, s *session, vm string, c *change) error {
		resp, err := s.ResumeVM(ctx, vm, &openapi.ResumeVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()})
		return s.finish(ctx, vm, resp, err)
	})
}

func (a *app) vmReset() *cobra.Command {
	return a.vmPower("reset", "Reset a virtual machine, whatever its guest is doing", func(ctx context.Context, s *session, vm string, c *change) error {
		resp, err := s.ResetVM(ctx, vm, &openapi.ResetVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()})
		return s.finish(ctx, vm, resp, err)
	})
}

func (a *app) vmReboot() *cobra.Command {
	return a.vmPower("reboot", "Ask the guest to boot again", func(ctx context.Context, s *session, vm string, c *change) error {
		resp, err := s.RebootVM(ctx, vm, &openapi.RebootVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()})
		return s.finish(ctx, vm, resp, err)
	})
}

func (a *app) vmStop() *cobra.Command {
	var c *change
	var force bool
	var timeout int
	cmd := a.leaf("stop VM", "Stop a virtual machine by force", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.StopVMParams{
			Force: given(s.cmd, "force", force), Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam(),
		}
		if patience := given(s.cmd, "timeout", timeout); patience != nil {
			resp, err := s.StopVM(ctx, args[0], params, openapi.VMShutdown{TimeoutS: patience})
			return s.finish(ctx, args[0], resp, err)
		}
		resp, err := s.StopVMWithBody(ctx, args[0], params, "application/json", nil)
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().BoolVar(&force, "force", true, "like pulling the plug; --force=false asks the guest")
	cmd.Flags().IntVar(&timeout, "timeout", 120, "seconds that the guest may take when it is asked")
	return cmd
}

func (a *app) vmShutdown() *cobra.Command {
	var c *change
	var timeout int
	cmd := a.leaf("shutdown VM", "Ask the guest to power off", func(ctx context.Context, s *session, args []string) error {
		params := &openapi.ShutdownVMParams{Wait: s.wait(), Reason: c.reasonParam(), IfMatch: c.ifMatchParam()}
		resp, err := s.ShutdownVM(ctx, args[0], params, openapi.VMShutdown{TimeoutS: &timeout})
		return s.finish(ctx, args[0], resp, err)
	})
	c = a.changing(cmd)
	c.conditional(cmd)
	cmd.Flags().IntVar(&timeout, "timeout", 120, "seconds that the guest may take")
	return cmd
}
