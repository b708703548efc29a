package pgserver

import "time"

// Hasten shortens the pauses between attempts to restart.
func (o *Options) Hasten() { o.pause = time.Millisecond }

// LogLimit is the size from which postgres.log is moved aside.
const LogLimit = logLimit

var ParseVersion = parseVersion
