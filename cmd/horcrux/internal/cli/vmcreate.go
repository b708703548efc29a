//nolint:bodyclose // Decode closes the body of every answer
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"horcrux/pkg/openapi"
)

// largestSpec is how many bytes of a file are read; the server takes no more.
const largestSpec = 1 << 20

// vmSpec is what the flags of vm create say.
type vmSpec struct {
	vmHardware
	file, backend, node, description string
	tags, disks, networks            []string
	noNetwork, start                 bool
}

func (a *app) vmCreate() *cobra.Command {
	var c *change
	spec := &vmSpec{}
	cmd := a.leaf("create NAME", "Create a virtual machine", func(ctx context.Context, s *session, args []string) error {
		body, err := spec.body(s.cmd, args[0])
		if err != nil {
			return err
		}
		resp, err := s.CreateVM(ctx, &openapi.CreateVMParams{Wait: s.wait(), Reason: c.reasonParam()}, body)
		return s.finish(ctx, args[0], resp, err)
	})
	cmd.Example = `  horcrux vm create web-1 --memory-mb 1024 --disk 10 --start
  horcrux vm create t1 --kernel /srv/vmlinuz --initrd /srv/initrd --cmdline console=ttyS0 --start
  horcrux vm create db --disk pool=local,size_gb=20,bus=scsi --disk 100 --no-network
  horcrux vm create web-2 --file web.yaml --tag web`
	c = a.changing(cmd)
	f := cmd.Flags()
	f.StringVarP(&spec.file, "file", "f", "", "YAML or JSON with the fields of POST /api/vms, - for standard input; flags win")
	f.StringVar(&spec.backend, "backend", "", "qemu, lxd or incus")
	f.StringVar(&spec.node, "node", "", "id or name; the server chooses otherwise")
	f.StringVar(&spec.description, "description", "", "what it is for")
	f.StringArrayVar(&spec.tags, "tag", nil, "a tag; may be repeated")
	spec.flags(f)
	f.StringArrayVar(&spec.disks, "disk", nil, "size in GiB, or pool=,size_gb=,format=,image=,bus=,boot_order=,cache=,discard=; may be repeated")
	f.StringArrayVar(&spec.networks, "network", nil, "name, or network=,model=,mac=,mtu=,link=,boot_order=; may be repeated")
	f.BoolVar(&spec.noNetwork, "no-network", false, "no network interface")
	f.BoolVar(&spec.start, "start", false, "start it when it is made")
	return cmd
}

// body is the request: the file's fields, and the flags' over them.
func (v *vmSpec) body(cmd *cobra.Command, name string) (openapi.VMCreate, error) {
	var body openapi.VMCreate
	if v.file != "" {
		if err := readSpec(cmd, v.file, &body); err != nil {
			return body, err
		}
	}
	body.Name = name
	over(&body.Backend, given(cmd, "backend", openapi.Backend(v.backend)))
	over(&body.Node, given(cmd, "node", v.node))
	over(&body.Description, given(cmd, "description", v.description))
	over(&body.CPUs, given(cmd, "cpus", v.cpus))
	over(&body.MaxCPUs, given(cmd, "max-cpus", v.maxCPUs))
	over(&body.MemoryMB, given(cmd, "memory-mb", v.memory))
	over(&body.CPUModel, given(cmd, "cpu-model", v.cpuModel))
	over(&body.Machine, given(cmd, "machine", openapi.Machine(v.machine)))
	over(&body.Firmware, given(cmd, "firmware", openapi.Firmware(v.firmware)))
	over(&body.SecureBoot, given(cmd, "secure-boot", v.secureBoot))
	over(&body.TPM, given(cmd, "tpm", v.tpm))
	over(&body.Serial, given(cmd, "serial", v.serial))
	over(&body.Agent, given(cmd, "agent", v.agent))
	over(&body.RNG, given(cmd, "rng", v.rng))
	over(&body.Autostart, given(cmd, "autostart", v.autostart))
	over(&body.OnDrift, given(cmd, "on-drift", openapi.OnDrift(v.onDrift)))
	enabled, password, err := v.screen(cmd)
	if err != nil {
		return body, err
	}
	if enabled != nil || password != nil {
		screen := openapi.VMVNCCreate{}
		if body.VNC != nil {
			screen = *body.VNC
		}
		over(&screen.Enabled, enabled)
		over(&screen.Password, password)
		body.VNC = &screen
	}
	over(&body.Start, given(cmd, "start", v.start))
	if v.tags != nil {
		body.Tags = v.tags
	}
	body.Boot = v.boot(cmd, body.Boot)
	if err := parseEach(cmd, "disk", "size_gb", v.disks, &body.Disks); err != nil {
		return body, err
	}
	if err := parseEach(cmd, "network", "network", v.networks, &body.Networks); err != nil {
		return body, err
	}
	if v.noNetwork && v.networks != nil {
		return body, &usageError{cmd, "--network and --no-network exclude one another"}
	}
	if v.noNetwork {
		body.Networks = []openapi.VMNICCreate{}
	}
	return body, nil
}

func over[T any](field **T, flag *T) {
	if flag != nil {
		*field = flag
	}
}

// parseEach reads the values of a repeated flag, "a=1,b=2" or the value of main alone, into items in place of those
// that are there.
func parseEach[T any](cmd *cobra.Command, flag, main string, values []string, items *[]T) error {
	if values == nil {
		return nil
	}
	*items = nil
	for _, value := range values {
		if !strings.Contains(value, "=") {
			value = main + "=" + value
		}
		fields := map[string]any{}
		for _, pair := range strings.Split(value, ",") {
			key, v, ok := strings.Cut(pair, "=")
			if _, twice := fields[key]; !ok || twice {
				return &usageError{cmd, fmt.Sprintf("--%s %q: %q is not key=value, or given twice", flag, value, pair)}
			}
			fields[key] = v
			if n, err := strconv.ParseInt(v, 10, 64); err == nil && key != "network" && key != "pool" {
				fields[key] = n
			}
		}
		var item T
		if err := strict(fields, &item); err != nil {
			return &usageError{cmd, fmt.Sprintf("--%s %q: %v", flag, value, err)}
		}
		*items = append(*items, item)
	}
	return nil
}

// readSpec reads YAML, of which JSON is a part.
func readSpec(cmd *cobra.Command, file string, body *openapi.VMCreate) error {
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return &usageError{cmd, err.Error()}
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, largestSpec))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	fields := map[string]any{}
	if err := yaml.Unmarshal(data, &fields); err != nil {
		return &usageError{cmd, fmt.Sprintf("%s: %v", file, err)}
	}
	if err := strict(fields, body); err != nil {
		return &usageError{cmd, fmt.Sprintf("%s: %v", file, err)}
	}
	return nil
}

// strict moves fields into a wire type, which has to know each of them.
func strict(fields map[string]any, into any) error {
	data, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err = d.Decode(into)
	if wrong := (*json.UnmarshalTypeError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("%s is a %s, not a %s", wrong.Field, wrong.Value, wrong.Type.Kind())
	}
	return err
}
