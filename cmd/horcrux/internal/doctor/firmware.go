//go:build !no_qemu

package doctor

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// descriptors are where firmware describes itself to libvirt (docs/interop/firmware.json of QEMU).
var descriptors = []string{"etc/qemu/firmware", "usr/share/qemu/firmware"}

type descriptor struct {
	Interfaces []string `json:"interface-types"`
	Mapping    struct {
		Filename   string                    `json:"filename"` // of the device memory
		Executable struct{ Filename string } `json:"executable"`
	} `json:"mapping"`
	Targets []struct {
		Architecture string `json:"architecture"`
	} `json:"targets"`
	Features []string `json:"features"`
}

// firmware looks for UEFI, and for one that can boot securely.
func firmware(_ context.Context, h *host) Finding {
	install := h.install(source{"ovmf", "sys-firmware/edk2-bin"})
	var plain, secure string
	for _, dir := range descriptors {
		// Glob fails for a malformed pattern only.
		files, _ := filepath.Glob(filepath.Join("/", h.Root, dir, "*.json"))
		for _, file := range files {
			d, err := readDescriptor(file)
			if err != nil || !slices.Contains(d.Interfaces, "uefi") || !d.fits() {
				continue
			}
			code := d.Mapping.Executable.Filename + d.Mapping.Filename
			if _, err := os.Stat(filepath.Join("/", h.Root, code)); err != nil {
				continue // described, and not there
			}
			if slices.Contains(d.Features, "secure-boot") {
				secure = code
			} else {
				plain = code
			}
		}
	}
	switch {
	case plain == "" && secure == "":
		return warn("not installed", install)
	case secure == "":
		return warn(plain+"; none with Secure Boot", install)
	}
	return ok("", strings.TrimPrefix(plain+", with Secure Boot ", ", ")+secure)
}

func readDescriptor(file string) (d descriptor, err error) {
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	return d, err
}

// fits says whether it is for this processor.
func (d descriptor) fits() bool {
	for _, t := range d.Targets {
		if t.Architecture == machine {
			return true
		}
	}
	return false
}
