// Package fake is a hypervisor in memory: fast, exact and as unreliable as a test asks for. It lives as long as its
// value: drivers come and go, as processes do, and find the same domains.
package fake

import (
	"cmp"
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"horcrux/services/compute/hypervisor"
	"horcrux/services/compute/hypervisor/watch"
)

// Effects counts what really happened to one domain, so that a test can tell once from twice. A repeated mutation
// that found its work done is not counted.
type Effects struct {
	Defined, Undefined, Started, Destroyed, Shutdown, Paused, Resumed, Reset, Reboot, Configured, Adjusted, Adopted, Autostart, Description,
	Snapshot, Restored, SnapshotDeleted int
}

type domain struct {
	spec    hypervisor.Spec
	live    hypervisor.Spec // what runs has
	state   hypervisor.State
	managed bool
	snaps   []snapshot
	at      string // the snapshot that it is at or has gone on from
}

// Hypervisor holds the domains.
type Hypervisor struct {
	mu      sync.Mutex
	domains map[uuid.UUID]*domain
	names   map[string]uuid.UUID
	effects map[uuid.UUID]*Effects
	bytes   map[string]byte // the first of each disk, by its path
	faults  []Fault
	latency time.Duration
	down    bool
	deaf    bool
	disobey bool
	silent  bool
	drivers map[*Driver]struct{}
	info    hypervisor.Info

	lans       map[uuid.UUID]*lan
	lanEffects map[uuid.UUID]NetworkEffects
}

// New returns an empty hypervisor of 64 CPUs and 1 TiB.
func New() *Hypervisor {
	return &Hypervisor{
		domains: map[uuid.UUID]*domain{},
		names:   map[string]uuid.UUID{},
		effects: map[uuid.UUID]*Effects{},
		bytes:   map[string]byte{},
		drivers: map[*Driver]struct{}{},

		lans: map[uuid.UUID]*lan{}, lanEffects: map[uuid.UUID]NetworkEffects{},
		info: hypervisor.Info{
			Name: "fake", Version: "1", CPUs: 64, MemoryMB: 1 << 20, MaxCPUs: 64,
			Accelerators: []hypervisor.Accelerator{hypervisor.KVM, hypervisor.TCG},
		},
	}
}

// Effects of a domain so far, also after it is gone.
func (h *Hypervisor) Effects(id uuid.UUID) Effects {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.effects[id]; e != nil {
		return *e
	}
	return Effects{}
}

// Spec is what the domain was defined with, changed as it was changed since.
func (h *Hypervisor) Spec(id uuid.UUID) (hypervisor.Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.domains[id]
	if !ok {
		return hypervisor.Spec{}, false
	}
	return d.spec, true
}

// Live is what a running domain has.
func (h *Hypervisor) Live(id uuid.UUID) (hypervisor.Spec, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.domains[id]
	if !ok || !d.active() {
		return hypervisor.Spec{}, false
	}
	return d.live, true
}

// Add puts a domain in behind the drivers' back, managed or not. It counts no effect.
func (h *Hypervisor) Add(spec hypervisor.Spec, state hypervisor.State, managed bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.domains[spec.ID] = &domain{spec: spec, live: spec, state: state, managed: managed}
	h.names[spec.Name] = spec.ID
	h.publish(spec.ID, state, "defined")
}

// Become changes a domain's state behind the drivers' back: "crashed", "destroyed" or whatever the test tells.
func (h *Hypervisor) Become(id uuid.UUID, state hypervisor.State, cause string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if d, ok := h.domains[id]; ok {
		d.state = state
		h.publish(id, state, cause)
	}
}

// Reconfigure changes what a domain has, of what runs or of the next start, behind the drivers' back.
func (h *Hypervisor) Reconfigure(id uuid.UUID, running bool, change func(*hypervisor.Spec)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.domains[id]
	if !ok {
		return
	}
	if running {
		change(&d.live)
		return
	}
	change(&d.spec)
	h.publish(id, d.state, "defined")
}

// Remove takes a domain away behind the drivers' back.
func (h *Hypervisor) Remove(id uuid.UUID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.remove(id)
}

func (h *Hypervisor) remove(id uuid.UUID) {
	if d, ok := h.domains[id]; ok {
		delete(h.domains, id)
		delete(h.names, d.spec.Name)
		h.publish(id, "", "undefined")
	}
}

// publish needs h.mu: the order of changes is the order of what happened.
func (h *Hypervisor) publish(id uuid.UUID, state hypervisor.State, cause string) {
	if h.silent {
		return
	}
	c := hypervisor.Change{ID: id, State: state, Cause: cause, At: time.Now()}
	for d := range h.drivers {
		d.hub().Publish(c)
	}
}

func (h *Hypervisor) effect(id uuid.UUID) *Effects {
	e := h.effects[id]
	if e == nil {
		e = &Effects{}
		h.effects[id] = e
	}
	return e
}

func (d *domain) observed() hypervisor.Domain {
	return hypervisor.Domain{
		ID: d.spec.ID, Name: d.spec.Name, NativeID: d.spec.Name, State: d.state,
		Autostart: d.spec.Autostart, Managed: d.managed,
	}
}

// version tells configurations apart.
func (d *domain) version() uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%v %v %v", d.spec, d.live, d.active())
	return max(h.Sum64(), 1)
}

func (d *domain) active() bool {
	return d.state == hypervisor.Running || d.state == hypervisor.Paused
}

// list needs h.mu.
func (h *Hypervisor) list() []hypervisor.Domain {
	all := make([]hypervisor.Domain, 0, len(h.domains))
	for _, d := range h.domains {
		all = append(all, d.observed())
	}
	slices.SortFunc(all, func(a, b hypervisor.Domain) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Driver returns a new driver of this hypervisor.
func (h *Hypervisor) Driver() *Driver {
	ctx, cancel := context.WithCancel(context.Background())
	d := &Driver{h: h, life: ctx, end: cancel, changes: watch.New()}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drivers[d] = struct{}{}
	return d
}

func refuse(sentinel error, format string, args ...any) error {
	return fmt.Errorf("%w: %s", sentinel, fmt.Sprintf(format, args...))
}
