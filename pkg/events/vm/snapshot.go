package vm

import (
	"slices"
	"time"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// SnapshotData is the data of vm.snapshot.
type SnapshotData struct {
	Name        string `json:"snapshot_name"`
	Description string `json:"description"`
	Memory      bool   `json:"memory"`
}

// SnapshotNameData is the data of vm.restore_snapshot and vm.delete_snapshot.
type SnapshotNameData struct {
	Name string `json:"name"`
}

// Taken is a snapshot as it was asked for.
type Taken struct {
	Name        string  `json:"name"`
	Parent      *string `json:"parent"` // the snapshot that the disks were at or had gone on from
	Description string  `json:"description"`
	Memory      bool    `json:"memory"`
	State       State   `json:"state"` // of the guest then
}

// SnapshotRequested is the intent to take a snapshot.
type SnapshotRequested struct {
	events.Intent
	Taken
}

// Snapshotted says that the snapshot is there.
type Snapshotted struct{ Taken }

// SnapshotFailed says that the snapshot did not come about. State is what was observed after it.
type SnapshotFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// RestoreRequested is the intent to bring the disks, and the memory if it is part of it, back to a snapshot.
type RestoreRequested struct {
	events.Intent
	Restored
}

// Restored says that the machine is at a snapshot. The configuration stays; of a guest that came with its memory, which
// has the hardware of then, Change says what of it holds and what waits for the next start.
type Restored struct {
	Name  string `json:"name"`
	State State  `json:"state"` // of the guest now
	Change
}

// RestoreFailed says that the restore did not come about. State is what was observed after it.
type RestoreFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// SnapshotRemoveRequested is the intent to delete a snapshot.
type SnapshotRemoveRequested struct {
	events.Intent
	SnapshotRemoved
}

// SnapshotRemoved says that a snapshot is gone. Those that were taken after it go on from the one before it.
type SnapshotRemoved struct {
	Name string `json:"name"`
}

// SnapshotRemoveFailed says that the snapshot could not be deleted. State is what was observed after it.
type SnapshotRemoveFailed struct {
	Problem *problem.Problem `json:"problem"`
	State   State            `json:"state"`
}

// Snapshot is one as the API returns it.
type Snapshot struct {
	Taken
	CreatedAt time.Time `json:"created_at"`
}

// Snapshots is the tree of them, in the order in which they were taken. Current is the one that the machine is at or
// has gone on from, "" for none.
type Snapshots struct {
	All     []Snapshot
	Current string
}

// Find is a snapshot by its name.
func (s Snapshots) Find(name string) (Snapshot, bool) {
	i := slices.IndexFunc(s.All, func(o Snapshot) bool { return o.Name == name })
	if i < 0 {
		return Snapshot{}, false
	}
	return s.All[i], true
}

// With is the tree after one more has been taken.
func (s Snapshots) With(t Taken, at time.Time) Snapshots {
	return Snapshots{All: append(slices.Clone(s.All), Snapshot{t, at}), Current: t.Name}
}

// Without is the tree after one has been deleted: those after it go on from the one before it.
func (s Snapshots) Without(name string) Snapshots {
	gone, ok := s.Find(name)
	if !ok {
		return s
	}
	out := Snapshots{All: []Snapshot{}, Current: s.Current}
	for _, o := range s.All {
		if o.Name == name {
			continue
		}
		if o.Parent != nil && *o.Parent == name {
			o.Parent = gone.Parent
		}
		out.All = append(out.All, o)
	}
	if out.Current == name {
		out.Current = ""
		if gone.Parent != nil {
			out.Current = *gone.Parent
		}
	}
	return out
}
