package vm_test

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/events/eventstest"
	"horcrux/pkg/events/vm"
)

func FuzzEvent(f *testing.F) {
	for _, kind := range vm.Codec.Types() {
		f.Add(kind, 1, []byte(`{}`))
	}
	f.Add("vm.create_requested", 1, []byte(`{"name":"a","disks":[{"pool":"local","size_gb":1}],"networks":[{"network":"default"}],"tags":["a"]}`))
	f.Add("vm.start_failed", 1, []byte(`{"problem":{"code":"effect_failed","detail":"no"}}`))
	f.Add("vm.updated", 1, []byte(`{"description":"a","tags":null,"autostart":true}`))
	f.Fuzz(func(t *testing.T, kind string, schema int, data []byte) {
		eventstest.Decodes(t, &vm.Resource, events.Event{Stream: "vm/x", Version: 1, Type: kind, Schema: schema, Data: data})
	})
}
