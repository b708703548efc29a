package openapi_test

import (
	"slices"
	"testing"

	"horcrux/pkg/openapi"
)

// What the document says and what the generated constants say are the same.
func TestEnum(t *testing.T) {
	if got := openapi.Enum("DiskFormat"); !slices.Equal(got, []string{string(openapi.DiskFormatQcow2), string(openapi.DiskFormatRaw)}) {
		t.Errorf("%q", got)
	}
	if got := openapi.Enum("VMState"); !slices.Contains(got, string(openapi.VMStateRunning)) || len(got) != 10 {
		t.Errorf("%q", got)
	}
	for _, schema := range []string{"None", "VM"} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s passes for an enum", schema)
				}
			}()
			openapi.Enum(schema)
		}()
	}
}
