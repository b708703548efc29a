package vm

import (
	"time"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Drifted says that the configuration was found to be another than we gave it.
type Drifted struct {
	Cause string `json:"cause"`
	Change
}

// RepairRequested is the intent to bring back what others changed, where the machine's policy says so.
type RepairRequested struct {
	events.Intent
	Cause string `json:"cause"`
	State State  `json:"state"` // to bring it back to
	// At is when, for counting those that follow one another.
	At time.Time `json:"at"`
}

// Repaired says that it is as it was, but for what could not be brought back.
type Repaired struct {
	State State `json:"state"`
	Change
}

// RepairFailed says that it could not be brought back. State is what was observed after it.
type RepairFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// RepairGivenUp says that it was brought back too often of late, and that no more is done until a command comes.
type RepairGivenUp struct {
	Problem *problem.Problem `json:"problem"`
}

// ImportData is the data of vm.import. The command's target is the domain's UUID.
type ImportData struct {
	Backend  string `json:"backend"`
	NativeID string `json:"native_id"`
}

// ImportRequested is the intent to adopt a domain that others made.
type ImportRequested struct {
	events.Intent
	Spec    Spec      `json:"spec"`
	Node    uuid.UUID `json:"node"`
	Sources []Source  `json:"sources"`
}

// Imported says that the domain is ours now, in the state that it is in.
type Imported struct {
	NativeID    string `json:"native_id"`
	Accelerator string `json:"accelerator"`
	State       State  `json:"state"`
}

// ImportFailed ends a machine that was not adopted.
type ImportFailed struct {
	Problem *problem.Problem `json:"problem"`
}
