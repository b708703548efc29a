package vm

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"horcrux/pkg/problem"
)

// Contradictions are values of a configuration that are right one by one and of no use together. Of two devices that clash
// it is the one that was given now, by its name, which contradicts the other.
func Contradictions(s Spec, given ...string) (fields []problem.Field) {
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
	var orders, macs []claim
	for i, d := range s.Disks {
		if d.BootOrder != nil {
			orders = append(orders, claim{fmt.Sprintf("disks[%d].boot_order", i), d.Name, strconv.Itoa(*d.BootOrder)})
		}
	}
	for i, n := range s.Networks {
		if n.BootOrder != nil {
			orders = append(orders, claim{fmt.Sprintf("networks[%d].boot_order", i), n.Name, strconv.Itoa(*n.BootOrder)})
		}
		if n.MAC != nil {
			macs = append(macs, claim{fmt.Sprintf("networks[%d].mac", i), n.Name, *n.MAC})
		}
	}
	return append(append(fields, clashes(orders, given)...), clashes(macs, given)...)
}

// claim is a value of a device that no other may have.
type claim struct{ field, device, value string }

// clashes are the claims of what others have. Those of devices that are given come last.
func clashes(claims []claim, given []string) (fields []problem.Field) {
	slices.SortStableFunc(claims, func(a, b claim) int {
		return cmp.Compare(slices.Index(given, a.device), slices.Index(given, b.device))
	})
	taken := map[string]claim{}
	for _, c := range claims {
		if other, clash := taken[c.value]; clash {
			fields = append(fields, problem.Field{Field: c.field, Detail: "is that of " + cmp.Or(other.device, other.field)})
			continue
		}
		taken[c.value] = c
	}
	return fields
}
