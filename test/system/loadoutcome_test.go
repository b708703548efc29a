package system_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	asked, started := 0, 0
	for after := ""; ; {
		var page struct {
			Items []events.Event
			Next  *string
		}
		l.i.Get("/api/events?limit=1000&after="+after, &page)
		for _, e := range page.Items {
			seen[effect{e.Meta.Operation.String(), e.Type}]++
			switch e.Type {
			case "vm.start_requested":
				asked++
			case "vm.started":
				started++
			}
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
	// QEMU's log of a machine has a line for each start. One that libvirtd's death cut off is made once more.
	begun := 0
	for n := range loadPower {
		text, err := os.ReadFile(filepath.Join(l.i.Dir, "libvirt", "log", "qemu", name(n)+".log"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.t.Fatal(err)
		}
		begun += strings.Count(string(text), "starting up libvirt version")
	}
	if begun < started || begun > asked+len(l.kills) || started == 0 {
		l.t.Errorf("QEMU was started %d times; %d starts were asked for and %d are recorded", begun, asked, started)
	}
}
