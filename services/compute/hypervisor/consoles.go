package hypervisor

// Consoles are where the consoles of a domain are on this node; "" for one that it does not have, or not while it is off.
type Consoles struct {
	Active    bool   // the domain runs or is paused
	VNC       string // Unix socket on which the hypervisor speaks RFB
	Serial    string // terminal of the first serial port
	SerialLog string // file to which its output is appended; there also while the domain is off
}
