// Package crashpoint lets the crash tests end the process at a named point. In a program built without the tag
// crashpoints it does nothing.
package crashpoint

// The points, in the order in which a command passes them.
const (
	Recorded     = "recorded"      // the operation is recorded and not published
	Published    = "published"     // the command is published
	Decided      = "decided"       // the decision is recorded and not acknowledged
	BeforeEffect = "before-effect" // the intent is taken up
	AfterEffect  = "after-effect"  // the world has changed, the fact is not recorded
	FactRecorded = "fact-recorded" // the fact is recorded and not projected
)
