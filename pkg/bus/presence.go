package bus

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"

	"horcrux/pkg/events"
)

// Times of presence. A service that is silent for longer than silentAfter is taken for gone; past forgetAfter nobody
// speaks of it any more.
const (
	announceEach = 2 * time.Second
	silentAfter  = 7 * time.Second
	forgetAfter  = 10 * time.Minute
)

// Presence is what a service of one node tells of itself.
type Presence struct {
	Domain string    `json:"domain"` // "compute"
	Node   uuid.UUID `json:"node"`
	Name   string    `json:"name"` // of the node, a label
	// Dependencies of the service by name, with a sentence for users where one is not ready and "" where it is.
	Dependencies map[string]string `json:"dependencies"`
	Leaves       bool              `json:"leaves,omitempty"` // it ends in order
}

// Announce tells every gateway of a service, again and again and whenever one asks, until ctx ends; then that it
// leaves. tell is called each time and has to answer within the deadline of its context.
func (b *Bus) Announce(ctx context.Context, tell func(context.Context) Presence) error {
	asked := make(chan *nats.Msg, 1) // a second question is answered with the first
	sub, err := b.nc.ChanSubscribe(events.PresenceAskSubject, asked)
	if err != nil {
		return fmt.Errorf("announce: %w", err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // the connection has ended, and the subscription with it
	announce := func(leaves bool) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), announceEach)
		defer cancel()
		p := tell(ctx)
		p.Leaves = leaves
		data, err := json.Marshal(p)
		if err == nil {
			err = b.nc.Publish(events.PresenceSubject, data)
		}
		if err != nil {
			b.Log.Warn("announce", "domain", p.Domain, "err", err)
		}
	}
	each := time.NewTicker(announceEach)
	defer each.Stop()
	for {
		announce(false)
		select {
		case <-ctx.Done():
			announce(true)
			return nil
		case <-asked:
		case <-each.C:
		}
	}
}

// Roster is who has announced itself. It may be used by many goroutines.
type Roster struct {
	clock func() time.Time
	sub   *nats.Subscription

	mu   sync.Mutex
	seen map[serviceKey]sighting
}

type serviceKey struct {
	domain string
	node   uuid.UUID
}

type sighting struct {
	Presence
	at time.Time
}

// Roster begins to listen, and asks who is there. Close ends it.
func (b *Bus) Roster(clock func() time.Time) (*Roster, error) {
	r := &Roster{clock: clock, seen: map[serviceKey]sighting{}}
	var err error
	if r.sub, err = b.nc.Subscribe(events.PresenceSubject, func(m *nats.Msg) {
		p, err := presenceOf(m)
		if err != nil {
			b.Log.Warn("an announcement that cannot be read", "err", err)
			return
		}
		r.take(p)
	}); err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	if err := b.nc.Publish(events.PresenceAskSubject, nil); err != nil {
		return nil, fmt.Errorf("roster: %w", err)
	}
	return r, nil
}

func presenceOf(m *nats.Msg) (Presence, error) {
	var p Presence
	if err := json.Unmarshal(m.Data, &p); err != nil {
		return p, err
	}
	if p.Domain == "" || p.Node == uuid.Nil {
		return p, errors.New("it is of no service")
	}
	return p, nil
}

// Close ends the listening.
func (r *Roster) Close() error { return r.sub.Unsubscribe() }

func (r *Roster) take(p Presence) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock()
	maps.DeleteFunc(r.seen, func(_ serviceKey, s sighting) bool { return now.Sub(s.at) > forgetAfter })
	if p.Leaves {
		delete(r.seen, serviceKey{p.Domain, p.Node})
		return
	}
	r.seen[serviceKey{p.Domain, p.Node}] = sighting{p, now}
}

// Service is a service as the roster knows it.
type Service struct {
	Presence
	Silent time.Duration // for how long nothing was heard of it; 0 while it is there
}

// Services are all that are known, ordered by domain and node.
func (r *Roster) Services() []Service {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Service
	for _, s := range r.seen {
		silent := r.clock().Sub(s.at)
		switch {
		case silent > forgetAfter:
			continue
		case silent < silentAfter:
			silent = 0
		}
		out = append(out, Service{s.Presence, silent})
	}
	slices.SortFunc(out, func(a, b Service) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), strings.Compare(a.Node.String(), b.Node.String()))
	})
	return out
}

// ErrAmbiguous: a name is that of several nodes.
var ErrAmbiguous = errors.New("several nodes have this name")

// Node finds a node that a service is or was on, by id or name; uuid.Nil if there is none. Where a node that fell silent
// and one that is there share a name, it means the latter; where two are there it is ErrAmbiguous.
func (r *Roster) Node(ref string) (uuid.UUID, error) {
	known := r.Services()
	for _, silent := range []bool{false, true} {
		var found uuid.UUID
		for _, s := range known {
			switch {
			case s.Node.String() == ref:
				return s.Node, nil
			case s.Name != ref || s.Silent > 0 != silent || s.Node == found:
			case found != uuid.Nil:
				return uuid.Nil, ErrAmbiguous
			default:
				found = s.Node
			}
		}
		if found != uuid.Nil {
			return found, nil
		}
	}
	return uuid.Nil, nil
}
