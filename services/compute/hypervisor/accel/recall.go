package accel

import (
	"context"
	"os/exec"
)

// Recall returns what an earlier Probe with the same options remembered, if it still holds. It boots nothing.
func Recall(ctx context.Context, o Options) (Result, bool) {
	if o.Logger == nil {
		o.Logger = discard
	}
	if o.QEMU == "" {
		var err error
		if o.QEMU, err = exec.LookPath("qemu-system-x86_64"); err != nil {
			return Result{}, false
		}
	}
	key, err := identify(ctx, o.QEMU)
	if err != nil {
		return Result{}, false
	}
	return recall(o, key)
}
