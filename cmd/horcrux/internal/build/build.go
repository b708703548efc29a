// Package build says what this binary is: its version and the USE flags that it was built with.
package build

import (
	"runtime/debug"

	"horcrux/pkg/openapi"
)

// Version is set by the linker; the Makefile takes it from git.
var Version = "0.1.0-dev"

// Commit is the source's, as the toolchain recorded it, or the linker.
var Commit = ""

func init() {
	if Commit != "" {
		return
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				Commit = s.Value
			}
		}
	}
}

// Features lists every USE flag and whether its part is in this binary. A flag without a part yet is never built.
func Features() []openapi.Feature {
	return []openapi.Feature{
		{Name: "qemu", Built: qemu, Description: "virtual machines on QEMU by libvirt"},
		{Name: "lxc", Description: "LXC containers"},
		{Name: "lxd", Description: "LXD containers and machines"},
		{Name: "incus", Description: "Incus containers and machines"},
		{Name: "docker", Description: "Docker containers"},
		{Name: "podman", Description: "Podman containers"},
		{Name: "zfs", Description: "ZFS pools"},
		{Name: "ceph", Description: "Ceph RBD pools"},
		{Name: "lvm", Description: "LVM pools"},
		{Name: "cluster", Description: "several nodes, high availability, migration"},
		{Name: "webui", Description: "web UI"},
		{Name: "backup", Description: "backup and restore"},
		{Name: "ldap", Description: "users from LDAP"},
		{Name: "ssl", Built: ssl, Description: "HTTPS listener"},
		{Name: "ipv6", Built: ipv6, Description: "listening on IPv6"},
	}
}

// Built says whether a flag's part is in this binary.
func Built(flag string) bool {
	for _, f := range Features() {
		if f.Name == flag {
			return f.Built
		}
	}
	return false
}
