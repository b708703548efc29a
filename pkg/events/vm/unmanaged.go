package vm

import "github.com/google/uuid"

// UnmanagedMethod is the call by which the compute service of a node is asked for the guests that others made. It takes
// nothing and answers with a list of Unmanaged.
const UnmanagedMethod = "unmanaged"

// Unmanaged is a guest that others made, which an import adopts.
type Unmanaged struct {
	ID       uuid.UUID `json:"id"`
	Name     string    `json:"name"`
	NativeID string    `json:"native_id"`
	Backend  string    `json:"backend"`
	Node     uuid.UUID `json:"node"`
	State    State     `json:"state"`
}
