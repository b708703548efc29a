package system_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	"horcrux/pkg/events/vm"
	"horcrux/pkg/openapi"
)

// settle waits until every operation has ended.
func (l *load) settle() {
	l.t.Logf("%d accepted; not so %v", len(l.accepted), l.refused)
	ends := map[operation.State]int{}
	for _, id := range l.accepted {
		var op operation.View
		l.i.Get("/api/operations/"+id+"?wait=120", &op)
		if !op.State.Ended() {
			l.t.Errorf("operation %s %s of %s is %s", id, op.Type, op.CreatedAt, op.State)
		}
		if op.Error != nil {
			ends[operation.State(fmt.Sprint(op.Type, " ", op.Error.Code, " ", op.Error.Detail))]++
		}
		ends[op.State]++
	}
	l.t.Logf("ended: %v", ends)
	settled(l.t, l.i)
}

// compare holds what is recorded against what is there.
func (l *load) compare() {
	var letters openapi.DeadLetterList
	if l.i.Get("/api/dead-letters", &letters); len(letters.Items) > 0 {
		l.t.Errorf("%d dead letters: %+v", len(letters.Items), letters.Items[0])
	}
	var vms openapi.VMList
	l.i.Get("/api/vms?limit=1000", &vms)
	var recorded []string
	for _, m := range vms.Items {
		recorded = append(recorded, m.ID.String())
		state := map[string]vm.State{"running": vm.StateRunning, "shut off": vm.StateStopped}[virsh(l.t, l.i, "domstate", m.Name)]
		if said := virsh(l.t, l.i, "desc", m.Name); state != m.State || said != m.Description && m.Description != "" {
			l.t.Errorf("%s is recorded as %s, %q; it is %s, %q", m.Name, m.State, m.Description, state, said)
		}
	}
	there := strings.Fields(virsh(l.t, l.i, "list", "--all", "--uuid"))
	slices.Sort(there)
	slices.Sort(recorded)
	if !slices.Equal(there, recorded) || len(there) != loadVMs {
		l.t.Errorf("domains  %v\nrecorded %v", there, recorded)
	}
	var volumes openapi.VolumeList
	l.i.Get("/api/storage/pools/local/volumes", &volumes)
	if files := volumeFiles(l.t, l.i); len(files) != len(volumes.Items) {
		l.t.Errorf("%d files of %d volumes: %v", len(files), len(volumes.Items), files)
	}
	l.once()
}

// once finds what happened twice: an operation that began or ended more than once, or left more than one fact.
func (l *load) once() {
	type effect struct{ operation, event string }
	seen := map[effect]int{}
	byMachine := map[events.Stream][]events.Event{}
	for after := ""; ; {
		var page struct {
			Items []events.Event
			Next  *string
		}
		l.i.Get("/api/events?limit=1000&after="+after, &page)
		for _, e := range page.Items {
			seen[effect{e.Meta.Operation.String(), e.Type}]++
			byMachine[e.Stream] = append(byMachine[e.Stream], e)
		}
		if page.Next == nil {
			break
		}
		after = *page.Next
	}
	for e, n := range seen {
		if n > 1 && e.operation != "00000000-0000-0000-0000-000000000000" && !strings.HasPrefix(e.event, "operation.step") {
			l.t.Errorf("%d times %s of operation %s", n, e.event, e.operation)
		}
	}
	started := 0
	for n := range loadPower {
		var m vm.View
		l.i.Get("/api/vms/"+name(n), &m)
		started += l.starts(m.Name, byMachine[events.NewStream(vm.Kind, m.ID)])
	}
	if started == 0 {
		l.t.Error("nothing was started")
	}
}

// starts holds how often QEMU was started, of which its log of the machine has a line each, against the starts that were
// asked for and those that are recorded. One that libvirtd's death cut off is made once more.
func (l *load) starts(name string, of []events.Event) (started int) {
	text, err := os.ReadFile(filepath.Join(l.i.Dir, "libvirt", "log", "qemu", name+".log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	var times []string // what happened to it, and when
	begun, asked, cut := 0, 0, 0
	for line := range strings.Lines(string(text)) {
		if at, _, ok := strings.Cut(line, ": starting up libvirt version"); ok {
			begun++
			times = append(times, strings.Replace(at, " ", "T", 1)+" QEMU")
		}
	}
	var since time.Time // when a start that is under way was asked for
	for _, e := range of {
		times = append(times, e.At.Format("2006-01-02T15:04:05.000")+" "+e.Type)
		switch e.Type {
		case "vm.start_requested":
			asked++
			since = e.At
		case "vm.started", "vm.start_failed", "vm.stopped":
			for _, kill := range l.kills {
				if !since.IsZero() && kill.After(since.Add(-time.Second)) && kill.Before(e.At) { // it dies within the second
					cut++
				}
			}
			since = time.Time{}
		}
		if e.Type == "vm.started" {
			started++
		}
	}
	if begun < started || begun > asked+cut {
		slices.Sort(times)
		l.t.Errorf("QEMU of %s was started %d times; %d starts were asked for, %d of them cut off, and %d are recorded; libvirtd was killed at %v\n%s",
			name, begun, asked, cut, started, l.kills, strings.Join(times, "\n"))
	}
	return started
}
