package compute

import (
	"encoding/json"
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
	"horcrux/services/compute/vm"
)

// FuzzCommand: whatever is the data of a command, or the results of the steps before it, it is read or refused, and
// decided.
func FuzzCommand(f *testing.F) {
	f.Add("create", []byte(`{"name":"a","cpus":1,"memory_mb":64,"start":true,"disks":[{"pool":"local","size_gb":1}],"networks":[]}`), []byte(`{}`))
	f.Add("define", []byte(`{}`), []byte(`{"type":"file","path":"/x","format":"raw"}`))
	f.Add("stop", []byte(`{"force":true,"timeout_s":30}`), []byte(`null`))
	f.Add("update", []byte(`{"description":"a","tags":["b"],"autostart":true}`), []byte(`[]`))
	f.Add("delete", []byte(`{"force":true,"keep_disks":true}`), []byte(`1`))
	for _, verb := range []string{"start", "shutdown", "pause", "resume", "reset", "remove"} {
		f.Add(verb, []byte(``), []byte(``))
	}
	commands := (&Service{}).kind().Commands
	f.Fuzz(func(t *testing.T, verb string, data, input []byte) {
		def, ok := commands[verb]
		if !ok {
			return
		}
		cmd := events.Command{ID: events.NewID(), Type: "vm." + verb, Target: events.NewID(), Data: data}
		if json.Valid(input) { // of a command that was read
			cmd.Inputs = map[string]json.RawMessage{diskStep(0): input}
		}
		c, err := def.Decode(cmd)
		if err != nil {
			return
		}
		if def.Overtakes != nil {
			def.Overtakes(c)
		}
		if def.Plan != nil {
			def.Plan(cmd, vm.Machine{})
		}
		if p, ok := c.(create); ok {
			c = p.Create
		}
		if _, err := vm.Decider.Decide(vm.Machine{}, c); err != nil && problem.From(err) == nil {
			t.Errorf("%s %s: %v is no problem", verb, data, err)
		}
	})
}
