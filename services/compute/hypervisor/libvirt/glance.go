//go:build !no_qemu

package libvirt

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/google/uuid"
)

// glanceTime is how long a look at what runs stands for a look at all of a domain. What its next start has changes with an
// event, but for the autostart flag and what libvirtd reads anew when it starts.
const glanceTime = 15 * time.Second

// glances remembers of each domain what it had in force when all of it was looked at, so that a domain that has not changed
// costs one call. An event of it makes it forget.
type glances struct {
	mu    sync.Mutex
	of    map[uuid.UUID]glance
	epoch uint64 // grows with every forget: what was read before one must not be remembered after it
}

// glance is what was in force, as part of a version of the whole.
type glance struct {
	version uint64
	running uint64 // hash of the document
	at      time.Time
}

var glanceSeed = maphash.MakeSeed()

// worth says whether what runs is enough to tell that a version still holds.
func (g *glances) worth(id uuid.UUID, version uint64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.of[id]
	return known && last.version == version && time.Since(last.at) < glanceTime
}

// holds says whether the version still holds with this document in force.
func (g *glances) holds(id uuid.UUID, version uint64, running string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	last, known := g.of[id]
	return known && last.version == version && last.running == maphash.String(glanceSeed, running)
}

// begin is to be called before all of a domain is looked at; what it returns takes in what was seen.
func (g *glances) begin(id uuid.UUID) func(version uint64, running string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	epoch, at := g.epoch, time.Now()
	return func(version uint64, running string) {
		g.mu.Lock()
		defer g.mu.Unlock()
		switch {
		case running == "":
			delete(g.of, id)
		case g.epoch == epoch:
			if g.of == nil {
				g.of = map[uuid.UUID]glance{}
			}
			g.of[id] = glance{version: version, running: maphash.String(glanceSeed, running), at: at}
		}
	}
}

func (g *glances) forget(id uuid.UUID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.epoch++
	delete(g.of, id)
}
