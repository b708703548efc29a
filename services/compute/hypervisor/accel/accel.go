// Package accel finds out how guest code can run on this node. That /dev/kvm is there, and that QEMU and libvirt
// believe in it, does not mean that a guest ever comes up: inside of other virtual machines it may run firmware and
// no kernel. So a kernel is booted with it, and what counts is a line from user space.
package accel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"horcrux/services/compute/hypervisor"
)

// Options of a probe. All may be left out.
type Options struct {
	// QEMU is the emulator's path. "" looks in PATH.
	QEMU string
	// Device is where KVM is. "" means /dev/kvm.
	Device string
	// Kernels are files and folders to look for a kernel in, before the host's own in /boot.
	Kernels []string
	// CacheFile remembers the answer for as long as kernel release, QEMU version and CPU stay what they are.
	CacheFile string
	// Override is the administrator's answer: kvm or tcg; auto or "" probes.
	Override string
	// Timeout for one kernel to come up. 0 means 10 s.
	Timeout time.Duration
	// Logger takes what goes wrong beside the answer. nil discards.
	Logger *slog.Logger
}

// Result of a probe.
type Result struct {
	Accelerator hypervisor.Accelerator
	Reason      string // for people
	Remembered  bool   // from an earlier probe
}

var discard = slog.New(slog.DiscardHandler)

// most kernels that are tried. One that does not come up may be no good itself.
const most = 3

// Probe answers how guests should run. It fails only with ctx and with an Override that it does not know; whatever
// else is in the way means TCG, with the reason.
func Probe(ctx context.Context, o Options) (Result, error) {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Device == "" {
		o.Device = "/dev/kvm"
	}
	if o.Logger == nil {
		o.Logger = discard
	}
	switch o.Override {
	case "kvm", "tcg":
		return Result{Accelerator: hypervisor.Accelerator(o.Override), Reason: "set by the administrator"}, nil
	case "", "auto":
	default:
		return Result{}, fmt.Errorf("accelerator %q: neither auto, kvm nor tcg", o.Override)
	}
	r, err := probe(ctx, o)
	if err != nil {
		return Result{}, fmt.Errorf("probe the accelerator: %w", err)
	}
	return r, nil
}

func probe(ctx context.Context, o Options) (Result, error) {
	tcg := func(format string, args ...any) (Result, error) {
		return Result{Accelerator: hypervisor.TCG, Reason: fmt.Sprintf(format, args...)}, ctx.Err()
	}
	if runtime.GOARCH != "amd64" {
		return tcg("not probed: there is no guest to probe with on %s", runtime.GOARCH)
	}
	device, err := os.OpenFile(o.Device, os.O_RDWR, 0)
	if err != nil {
		return tcg("KVM is not usable: %s", err)
	}
	device.Close()
	if o.QEMU == "" {
		if o.QEMU, err = exec.LookPath("qemu-system-x86_64"); err != nil {
			return tcg("not probed: %s", err)
		}
	}
	key, err := identify(ctx, o.QEMU)
	if err != nil {
		return tcg("not probed: %s", err)
	}
	if r, ok := recall(o, key); ok {
		return r, nil
	}
	kernels := find(append(o.Kernels, "/boot"))
	if len(kernels) == 0 {
		return tcg("not probed: no kernel to boot in %s; KVM may work", strings.Join(append(o.Kernels, "/boot"), ", "))
	}

	var failed []error
	for _, kernel := range kernels[:min(len(kernels), most)] {
		began := time.Now()
		err := boot(ctx, o, kernel, "-accel", "kvm", "-cpu", "host")
		if ctx.Err() != nil {
			return Result{}, ctx.Err()
		}
		if err == nil {
			r := Result{
				Accelerator: hypervisor.KVM,
				Reason:      fmt.Sprintf("%s came up with KVM in %s", kernel, time.Since(began).Round(time.Millisecond)),
			}
			remember(o, key, r)
			return r, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", kernel, err))
	}
	r, err := tcg("no kernel came up with KVM within %s: %s", o.Timeout, flat(errors.Join(failed...)))
	if err == nil {
		remember(o, key, r)
	}
	return r, err
}

// flat puts an error on one line.
func flat(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

// identity is what an answer holds for.
type identity struct {
	Release string `json:"kernel_release"`
	QEMU    string `json:"qemu"`
	CPU     string `json:"cpu"`
}

func identify(ctx context.Context, qemu string) (identity, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return identity{}, fmt.Errorf("uname: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	version, err := exec.CommandContext(ctx, qemu, "-version").Output()
	if err != nil {
		return identity{}, fmt.Errorf("%s -version: %w", qemu, err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return identity{}, err
	}
	cpu := ""
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	return identity{Release: unix.ByteSliceToString(u.Release[:]), QEMU: first, CPU: cpu}, nil
}
