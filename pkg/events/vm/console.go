package vm

import "github.com/google/uuid"

// ConsoleMethod is the call by which the compute service of a node is asked for a console.
const ConsoleMethod = "console"

// Console is what can be opened of a virtual machine.
type Console string

// The consoles.
const (
	ConsoleVNC       Console = "vnc"        // the screen
	ConsoleSerial    Console = "serial"     // the serial line, with the end of what was said before
	ConsoleSerialLog Console = "serial_log" // the end of what the serial line said, and no more; needs no running guest
)

// OpenConsole is the request of ConsoleMethod. Who sends it has opened the pipe of the session; the node joins it before
// it answers.
type OpenConsole struct {
	Session  uuid.UUID `json:"session"`
	VM       uuid.UUID `json:"vm"`
	Console  Console   `json:"console"`
	ReadOnly bool      `json:"read_only"` // nothing that is sent reaches the guest
}
