package eventstore

import (
	"sync"
	"time"
)

// later is by how much readers are nudged later when more is about to be appended. The decision and the fact of a quick
// operation, two appends, should come within it: a projection that begins between them competes with the second.
const later = 5 * time.Millisecond

// Nudges tells readers that something was appended, for a Store.
type Nudges struct {
	c  chan struct{}
	mu sync.Mutex
	t  *time.Timer // runs while a nudge is to come later
}

// NewNudges returns Nudges without a nudge.
func NewNudges() *Nudges { return &Nudges{c: make(chan struct{}, 1)} }

// Nudged has a value after one or more nudges.
func (n *Nudges) Nudged() <-chan struct{} { return n.c }

// Nudge tells of an append. It never blocks: a reader that was nudged and has not read yet will see this append too.
func (n *Nudges) Nudge(a Append) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.t != nil {
		if a.MoreFollows {
			return
		}
		n.t.Stop()
		n.t = nil
	}
	if a.MoreFollows {
		n.t = time.AfterFunc(later, func() { n.Nudge(Append{}) })
		return
	}
	select {
	case n.c <- struct{}{}:
	default:
	}
}
