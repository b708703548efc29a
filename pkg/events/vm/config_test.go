package vm_test

import (
	"net"
	"testing"

	"github.com/google/uuid"

	"horcrux/pkg/events/vm"
)

func TestDerivedMAC(t *testing.T) {
	id := uuid.New()
	first := vm.DerivedMAC(id, "nic0")
	if again := vm.DerivedMAC(id, "nic0"); again != first {
		t.Errorf("%s, then %s", first, again)
	}
	if first == vm.DerivedMAC(id, "nic1") || first == vm.DerivedMAC(uuid.New(), "nic0") {
		t.Error("not derived from id and name")
	}
	if hw, err := net.ParseMAC(first); err != nil || len(hw) != 6 || hw[0] != 0x52 {
		t.Errorf("%s: %v", first, err)
	}
}
