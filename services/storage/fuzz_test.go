package storage

import (
	"testing"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
	"horcrux/services/storage/volume"
)

// FuzzCommand: whatever is the data of a command, it is read or refused as a problem, and decided.
func FuzzCommand(f *testing.F) {
	f.Add("create", []byte(`{"pool":"01900000-0000-7000-8000-000000000001","name":"a","size_gb":1,"format":"raw","thin":true}`))
	f.Add("delete", []byte(`{"owner":"vm/x"}`))
	f.Add("release", []byte(``))
	commands := (&Service{}).volumeKind().Commands
	f.Fuzz(func(t *testing.T, verb string, data []byte) {
		def, ok := commands[verb]
		if !ok {
			return
		}
		c, err := def.Decode(events.Command{ID: events.NewID(), Type: "volume." + verb, Target: events.NewID(), Data: data})
		if err == nil {
			_, err = volume.Decider.Decide(volume.Volume{}, c)
		}
		if err != nil && problem.From(err) == nil {
			t.Errorf("%s %s: %v is no problem", verb, data, err)
		}
	})
}
