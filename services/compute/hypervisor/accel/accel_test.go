package accel

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/drivertest/guest"
)

// fakeEnv makes this test binary play QEMU.
const fakeEnv = "HORCRUX_TEST_PLAY_QEMU"

func TestMain(m *testing.M) {
	switch play := os.Getenv(fakeEnv); {
	case play == "":
		os.Exit(m.Run())
	case slices.Contains(os.Args, "-version"):
		fmt.Println("QEMU emulator version 1.2.3\nCopyright")
	case play == "boots":
		fmt.Printf("SeaBIOS\r\n[ 0.1] Linux\r\n%s\r\n", line)
		select {} // idles until it is killed
	case play == "silent":
		select {}
	case play == "fails":
		fmt.Fprintln(os.Stderr, "Assertion failed\nmore")
		os.Exit(1)
	case play == "reboots":
		fmt.Println("Kernel panic")
	}
}

// setup returns options with a device that can be opened, a kernel by its magic, and a fake QEMU.
func setup(t *testing.T, play string) Options {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(fakeEnv, play)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // the race detector's pause at each exit is a second
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kernel := make([]byte, 0x210)
	copy(kernel[0x202:], "HdrS")
	o := Options{
		QEMU: self, Device: filepath.Join(dir, "kvm"), Kernels: []string{filepath.Join(dir, "vmlinuz-test")},
		CacheFile: filepath.Join(dir, "accelerator.json"), Timeout: 5 * time.Second,
	}
	for path, content := range map[string][]byte{o.Device: nil, o.Kernels[0]: kernel} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		play   string
		want   hypervisor.Accelerator
		reason string
	}{
		{"boots", hypervisor.KVM, "came up with KVM"},
		{"silent", hypervisor.TCG, "no line from user space in time"},
		{"fails", hypervisor.TCG, "Assertion failed"},
		{"reboots", hypervisor.TCG, "ended without a line"},
	} {
		t.Run(tc.play, func(t *testing.T) {
			o := setup(t, tc.play)
			if r, known := Recall(t.Context(), o); known {
				t.Errorf("remembered before it was tried: %+v", r)
			}
			if tc.play == "silent" {
				o.Timeout = 100 * time.Millisecond
			}
			r, err := Probe(t.Context(), o)
			if err != nil || r.Accelerator != tc.want || !strings.Contains(r.Reason, tc.reason) || r.Remembered {
				t.Fatalf("%+v, %v", r, err)
			}
			t.Setenv(fakeEnv, "fails") // would now say the opposite, if it were asked
			again, err := Probe(t.Context(), o)
			if err != nil || again.Accelerator != tc.want || !again.Remembered || again.Reason != r.Reason {
				t.Errorf("not remembered: %+v, %v", again, err)
			}
			if recalled, known := Recall(t.Context(), o); !known || recalled != again {
				t.Errorf("recalled as %+v, %t, want %+v", recalled, known, again)
			}
		})
	}
	t.Run("NoDevice", func(t *testing.T) {
		o := setup(t, "boots")
		o.Device += "-absent"
		r, err := Probe(t.Context(), o)
		if err != nil || r.Accelerator != hypervisor.TCG || !strings.Contains(r.Reason, "not usable") {
			t.Errorf("%+v, %v", r, err)
		}
	})
	t.Run("NoKernel", func(t *testing.T) {
		if len(find([]string{"/boot"})) > 0 {
			t.Skip("this host has a kernel in /boot")
		}
		o := setup(t, "boots")
		o.Kernels = []string{t.TempDir()}
		r, err := Probe(t.Context(), o)
		if err != nil || r.Accelerator != hypervisor.TCG || !strings.Contains(r.Reason, "no kernel to boot") {
			t.Errorf("%+v, %v", r, err)
		}
		if _, err := os.Stat(o.CacheFile); err == nil {
			t.Error("remembered, though a kernel may come")
		}
	})
	t.Run("Override", func(t *testing.T) {
		for _, want := range []hypervisor.Accelerator{hypervisor.KVM, hypervisor.TCG} {
			r, err := Probe(t.Context(), Options{Override: string(want)})
			if err != nil || r.Accelerator != want {
				t.Errorf("%+v, %v", r, err)
			}
		}
		if _, err := Probe(t.Context(), Options{Override: "hvf"}); err == nil {
			t.Error("an unknown accelerator was taken")
		}
	})
	t.Run("ContextEnds", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		o := setup(t, "silent")
		time.AfterFunc(50*time.Millisecond, cancel)
		if _, err := Probe(ctx, o); err == nil {
			t.Error("an answer without a probe")
		}
		if _, err := os.Stat(o.CacheFile); err == nil {
			t.Error("remembered what was not found out")
		}
	})
}

func TestCache(t *testing.T) {
	o := setup(t, "boots")
	other := record{identity: identity{Release: "1", QEMU: "2", CPU: "3"}, Accelerator: hypervisor.TCG, Reason: "other host"}
	text, _ := json.Marshal([]record{other})
	if err := os.WriteFile(o.CacheFile, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Probe(t.Context(), o); err != nil || r.Accelerator != hypervisor.KVM {
		t.Fatalf("another host's answer was taken: %+v, %v", r, err)
	}
	if all := records(withLogger(o)); len(all) != 2 || all[0].Reason != other.Reason {
		t.Errorf("the other host's answer is gone: %+v", all)
	}
	if err := os.WriteFile(o.CacheFile, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := Probe(t.Context(), o); err != nil || r.Remembered || r.Accelerator != hypervisor.KVM {
		t.Errorf("a broken file was in the way: %+v, %v", r, err)
	}
}

func withLogger(o Options) Options {
	o.Logger = discard
	return o
}

// The probe's guest comes up on a real kernel and a real QEMU without KVM: a silence with it is KVM's fault.
func TestGuestReachesUserSpace(t *testing.T) {
	if testing.Short() {
		t.Skip("short: boots a guest")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skipf("real: qemu: %v", err)
	}
	o := Options{QEMU: qemu, Timeout: time.Minute}
	if err := boot(t.Context(), o, guest.Kernel(t), "-accel", "tcg"); err != nil {
		t.Fatal(err)
	}
}

// Whatever this machine can do, the answer is one of the two, with a reason.
func TestProbeOfThisMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("short: boots a guest")
	}
	r, err := Probe(t.Context(), Options{Kernels: []string{guest.Kernel(t)}})
	if err != nil || r.Reason == "" || r.Accelerator != hypervisor.KVM && r.Accelerator != hypervisor.TCG {
		t.Fatalf("%+v, %v", r, err)
	}
	t.Logf("%s: %s", r.Accelerator, r.Reason)
}
