//go:build !no_qemu

package libvirt

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/google/uuid"
)

// glanceTime is how long a look at its documents stands for a look at all of a domain: its state, whether it is persistent
// and whose it is change with an event, but its autostart flag does not.
const glanceTime = 15 * time.Second

// glances remembers the documents of each domain when all of it was looked at, so that a domain that runs and has not
// changed costs two calls. An event of it makes it forget.
type glances struct {
	mu    sync.Mutex
	of    map[uuid.UUID]glance
	epoch uint64 // grows with every forget: what was read before one must not be remembered after it
}

// glance is what the documents were, as part of a version of the whole.
type glance struct {
	version   uint64
	documents documents
	at        time.Time
}

// documents tell what runs and what the next start has: a hash of each.
type documents [2]uint64

func hashed(running, next string) documents {
	return documents{maphash.String(glanceSeed, running), maphash.String(glanceSeed, next)}
}

var glanceSeed = maphash.MakeSeed()

// worth says whether the documents are enough to tell that a version still holds.
func (g *glances) worth(id uuid.UUID, version uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.of[id]
	return known && last.version == version && time.Since(last.at) < glanceTime
}

// holds says whether the version still holds with these documents.
func (g *glances) holds(id uuid.UUID, version uint64, d documents) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.of[id]
	return known && last.version == version && last.documents == d
}

// begin is to be called before all of a domain is looked at; what it returns takes in what was seen.
func (g *glances) begin(id uuid.UUID) func(version uint64, running, next string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	epoch, at := g.epoch, time.Now()
	return func(version uint64, running, next string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		switch {
		case running == "":
			delete(g.of, id)
		case g.epoch == epoch:
			if g.of == nil {
				g.of = map[uuid.UUID]glance{}
			}
			g.of[id] = glance{version: version, documents: hashed(running, next), at: at}
		}
	}
}

func (g *glances) forget(id uuid.UUID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
	delete(g.of, id)
}
