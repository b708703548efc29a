package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"horcrux/pkg/events"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/eventstore"
	"horcrux/pkg/eventstore/postgres"
	"horcrux/services/api"
	"horcrux/services/api/readmodel"
	"horcrux/services/api/submit"
)

// fleet is a database with the log of many virtual machines and the read model of it.
type fleet struct {
	pool   *pgxpool.Pool
	store  *postgres.Store
	model  *readmodel.Model
	vms    int
	events int // of each machine
}

// fleetConnections is how many connections a fleet's pool has.
const fleetConnections = 8

// fleet returns a database with so many machines of so many events each, made when it is first asked for.
func (b *bench) fleet(ctx context.Context, vms, each int) (*fleet, error) {
	name := fmt.Sprintf("fleet_%d_%d", vms, each)
	if f := b.fleets[name]; f != nil {
		return f, nil
	}
	l, err := b.postgres(ctx)
	if err != nil {
		return nil, err
	}
	pool, store, err := l.open(ctx, name, fleetConnections)
	if err != nil {
		return nil, err
	}
	f := &fleet{pool: pool, store: store, vms: vms, events: each}
	begin := time.Now()
	if err := seed(ctx, store, vms, each); err != nil {
		return nil, err
	}
	seeded := time.Since(begin)
	f.model, err = readmodel.Open(ctx, readmodel.Options{
		Pool: pool, Reader: store, Resources: kinds(), Log: b.log,
	})
	if err != nil {
		return nil, err
	}
	if err := f.model.RunToEnd(ctx); err != nil {
		return nil, err
	}
	// What autovacuum would have done by the time that so much has happened.
	if _, err := pool.Exec(ctx, "VACUUM ANALYZE"); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "  seeded %d machines of %d events in %s, projected them in %s\n", vms, each,
		seeded.Round(time.Millisecond), (time.Since(begin) - seeded).Round(time.Millisecond))
	b.fleets[name] = f
	return f, nil
}

// kinds are all that a gateway projects.
func kinds() []*events.Resource {
	return append([]*events.Resource{submit.Operations}, api.Resources...)
}

// Bounds of one append while seeding.
const (
	seedStreams = 40
	seedEvents  = 5 // of one machine
	seeders     = 4
)

// vmID is the id of the nth machine of every fleet.
func vmID(n int) uuid.UUID { return events.DerivedID("bench machine", n) }

// vmName is its name.
func vmName(n int) string { return fmt.Sprintf("vm-%05d", n) }

// seed appends the stories of machines, a few events of each in turn, as they come about.
func seed(ctx context.Context, store eventstore.Store, vms, each int) error {
	if each%seedEvents != 0 {
		return fmt.Errorf("%d events are no multiple of %d", each, seedEvents)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(seeders)
	for first := 0; first < vms; first += seedStreams {
		g.Go(func() error { return seedSome(ctx, store, first, min(first+seedStreams, vms), each) })
	}
	return g.Wait()
}

func seedSome(ctx context.Context, store eventstore.Store, first, end, each int) error {
	heads := make([]eventstore.Head, end-first)
	for from := 0; from < each; from += seedEvents {
		op := events.NewID()
		a := eventstore.Append{Meta: events.Meta{
			Actor: "uid:0", Auth: "peer", Correlation: op, Causation: events.NewID(), Operation: op, Node: node,
		}}
		for i := range heads {
			id := vmID(first + i)
			s := eventstore.StreamAppend{
				Stream: events.NewStream(vm.Kind, id), Head: heads[i], Events: story(first+i, op, from, seedEvents),
			}
			if from == 0 {
				s.Claim = []eventstore.Name{{Scope: vm.NameScope, Value: vmName(first + i)}}
			}
			a.Streams = append(a.Streams, s)
		}
		r, err := store.Append(ctx, a)
		if err != nil {
			return fmt.Errorf("seed: %w", err)
		}
		for i := range heads {
			last := r.Events[(i+1)*seedEvents-1]
			heads[i] = eventstore.Head{Version: last.Version, Hash: last.Hash, At: last.At}
		}
	}
	return nil
}

// node is where the machines of a fleet are.
var node = events.DerivedID("bench node")

// story is a piece of what happens to a machine: it is created and started, then changed, stopped and started again.
func story(n int, op uuid.UUID, from, count int) []events.Draft {
	intent := func(verb string) events.Intent {
		return events.Intent{
			Type: "vm." + verb, Command: events.NewID(), Operation: op, Deadline: time.Now().UTC().Add(10 * time.Minute),
		}
	}
	var drafts []events.Draft
	for i := from; i < from+count; i++ {
		var e any
		switch i {
		case 0:
			e = vm.CreateRequested{Spec: vmSpec(n), Node: node, Operation: op}
		case 1:
			e = vm.DefineRequested{Intent: intent("define"), Sources: []vm.Source{}}
		case 2:
			e = vm.Created{NativeID: vmName(n), Accelerator: "tcg"}
		case 3:
			e = vm.StartRequested{Intent: intent("start")}
		case 4:
			e = vm.Started{}
		default:
			switch i % 5 {
			case 0:
				text := fmt.Sprintf("changed %d times", i/5)
				e = described(text)
			case 1:
				e = vm.StopRequested{Intent: intent("stop"), Force: true}
			case 2:
				e = vm.Stopped{}
			case 3:
				e = vm.StartRequested{Intent: intent("start")}
			case 4:
				e = vm.Started{}
			}
		}
		drafts = append(drafts, vm.Codec.Encode(e))
	}
	return drafts
}

func vmSpec(n int) vm.Spec {
	kernel, cmdline := "/var/lib/horcrux/images/vmlinuz", "console=ttyS0"
	return vm.Spec{
		Name: vmName(n), Backend: "qemu", Description: "a machine of the fleet", Tags: []string{"bench", fmt.Sprintf("rack-%d", n%40)},
		CPUs: 2, MemoryMB: 1024, CPUModel: "host-model", Machine: "q35", Firmware: "bios",
		Disks: []vm.Disk{{
			Pool: "local", SizeGB: 10, Format: "qcow2", Bus: "virtio", PoolID: events.DerivedID("bench pool"),
			VolumeID: events.DerivedID("bench volume", n), VolumeName: fmt.Sprintf("vm-%s-disk-0", vmID(n)),
		}},
		Networks: []vm.NIC{{Network: "default", Model: "virtio"}},
		Boot:     vm.Boot{Kernel: &kernel, Cmdline: &cmdline}, OnDrift: "record",
	}
}

// whole makes sure that the read model has every machine with all its events.
func (f *fleet) whole(ctx context.Context) error {
	const found = `SELECT count(*) FROM api.views WHERE kind = 'vm' AND version = $1 AND NOT deleted
		AND gen = (SELECT gen FROM api.projections WHERE kind = 'vm')`
	var n int
	if err := f.pool.QueryRow(ctx, found, f.events).Scan(&n); err != nil {
		return err
	}
	if n != f.vms {
		return fmt.Errorf("the read model has %d whole machines of %d", n, f.vms)
	}
	return nil
}

// described is the event of a change of the description.
func described(text string) vm.Updated {
	return vm.Updated{Change: vm.Change{Changed: vm.Fields{"description": json.RawMessage(strconv.Quote(text))}}}
}
