package vm

import (
	"cmp"
	"fmt"

	"horcrux/pkg/problem"
)

// Contradictions are values of a configuration that are right one by one and of no use together.
func Contradictions(s Spec) (fields []problem.Field) {
	wrong := func(field, format string, args ...any) {
		fields = append(fields, problem.Field{Field: field, Detail: fmt.Sprintf(format, args...)})
	}
	if s.MaxCPUs < s.CPUs {
		wrong("max_cpus", "is less than the %d of cpus", s.CPUs)
	}
	if s.Boot.Kernel == nil && s.Boot.Initrd != nil {
		wrong("boot.initrd", "needs boot.kernel")
	}
	if s.Boot.Kernel == nil && s.Boot.Cmdline != nil {
		wrong("boot.cmdline", "needs boot.kernel")
	}
	if s.SecureBoot && s.Firmware != "uefi" {
		wrong("secure_boot", "needs firmware uefi")
	}
	if s.Firmware == "uefi" && s.Machine != "q35" && s.SecureBoot {
		wrong("secure_boot", "needs machine q35")
	}
	if s.VNC.Password != nil && !s.VNC.Enabled {
		wrong("vnc.password", "needs vnc.enabled")
	}
	order := map[int]string{}
	boots := func(field, name string, n *int) {
		if n == nil {
			return
		}
		if other, taken := order[*n]; taken {
			wrong(field+".boot_order", "is that of %s", other)
			return
		}
		order[*n] = cmp.Or(name, field)
	}
	for i, d := range s.Disks {
		boots(fmt.Sprintf("disks[%d]", i), d.Name, d.BootOrder)
	}
	macs := map[string]string{}
	for i, n := range s.Networks {
		field := fmt.Sprintf("networks[%d]", i)
		boots(field, n.Name, n.BootOrder)
		if n.MAC == nil {
			continue
		}
		if other, taken := macs[*n.MAC]; taken {
			wrong(field+".mac", "is that of %s", other)
		}
		macs[*n.MAC] = cmp.Or(n.Name, field)
	}
	return fields
}
