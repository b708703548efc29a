//go:build no_qemu

package serve

import "context"

// compute has no hypervisor to drive in this build. The gateway answers 501 for virtual machines.
func (s *server) compute(context.Context) error { return nil }

// Hook has nothing to take over in this build.
func Hook() {}
