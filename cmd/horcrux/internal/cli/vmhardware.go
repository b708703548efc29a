package cli

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"horcrux/pkg/openapi"
)

// largestPassword is how many bytes of a file with one are read.
const largestPassword = 1 << 10

// vmHardware are the flags that a create and an update have in common.
type vmHardware struct {
	cpus, maxCPUs                              int
	memory                                     int64
	cpuModel, machine, firmware, onDrift       string
	kernel, initrd, cmdline, iso, passwordFile string
	secureBoot, tpm, serial, vnc, agent, rng   bool
	autostart                                  bool
}

func (v *vmHardware) flags(f *pflag.FlagSet) {
	f.IntVar(&v.cpus, "cpus", 1, "virtual CPUs")
	f.IntVar(&v.maxCPUs, "max-cpus", 0, "up to which CPUs can be added while it runs")
	f.Int64Var(&v.memory, "memory-mb", 512, "memory in MiB")
	f.StringVar(&v.cpuModel, "cpu-model", "", "CPU model")
	f.StringVar(&v.machine, "machine", "", "q35 or pc")
	f.StringVar(&v.firmware, "firmware", "", "bios or uefi")
	f.BoolVar(&v.secureBoot, "secure-boot", false, "only signed systems boot; needs --firmware uefi")
	f.BoolVar(&v.tpm, "tpm", false, "a TPM 2.0")
	f.StringVar(&v.kernel, "kernel", "", "kernel to boot, a path on the node")
	f.StringVar(&v.initrd, "initrd", "", "its initrd")
	f.StringVar(&v.cmdline, "cmdline", "", "its command line")
	f.StringVar(&v.iso, "iso", "", "ISO image, a path on the node")
	f.BoolVar(&v.serial, "serial", true, "a serial console")
	f.BoolVar(&v.vnc, "vnc", true, "a screen")
	f.StringVar(&v.passwordFile, "vnc-password-file", "", "file with the screen's password, at most 8 characters; - for standard input; an empty one takes it away")
	f.BoolVar(&v.agent, "agent", false, "a channel for the guest agent")
	f.BoolVar(&v.rng, "rng", true, "random numbers of the host")
	f.BoolVar(&v.autostart, "autostart", false, "start it with its node")
	f.StringVar(&v.onDrift, "on-drift", "", "what to do about changes behind our back: record or repair")
}

// screen says what the flags say of it. A password comes from a file: arguments are for everybody to see.
func (v *vmHardware) screen(cmd *cobra.Command) (enabled *bool, password *string, err error) {
	enabled = given(cmd, "vnc", v.vnc)
	if v.passwordFile == "" {
		return enabled, nil, nil
	}
	in := cmd.InOrStdin()
	if v.passwordFile != "-" {
		f, err := os.Open(v.passwordFile)
		if err != nil {
			return nil, nil, &usageError{cmd, err.Error()}
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, largestPassword))
	if err != nil {
		return nil, nil, &usageError{cmd, "read the password: " + err.Error()}
	}
	line := strings.TrimRight(string(text), "\r\n")
	return enabled, &line, nil
}

// boot is what a machine starts from, with the flags over what is there; nil if there is nothing.
func (v *vmHardware) boot(cmd *cobra.Command, there *openapi.VMBootCreate) *openapi.VMBootCreate {
	boot := openapi.VMBootCreate{}
	if there != nil {
		boot = *there
	}
	over(&boot.Kernel, given(cmd, "kernel", v.kernel))
	over(&boot.Initrd, given(cmd, "initrd", v.initrd))
	over(&boot.Cmdline, given(cmd, "cmdline", v.cmdline))
	over(&boot.ISO, given(cmd, "iso", v.iso))
	if boot == (openapi.VMBootCreate{}) {
		return there
	}
	return &boot
}
