// Package volume is the language of volumes.
package volume

import (
	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/problem"
)

// Kind of the streams of volumes.
const Kind = "volume"

// NameScope is where the names of a pool's volumes are unique.
func NameScope(pool uuid.UUID) string { return "volume/" + pool.String() }

// CreateData is the data of volume.create.
type CreateData struct {
	Pool   uuid.UUID `json:"pool"`
	Name   string    `json:"name"`
	SizeGB int64     `json:"size_gb"` // GiB
	Format string    `json:"format"`  // raw or qcow2
	Thin   bool      `json:"thin"`
	// Owner is the object to which the volume belongs and without which it cannot be deleted, "" for none.
	Owner events.Stream `json:"owner,omitempty"`
	// Image is the path of a file whose bytes the volume starts with, "" for none.
	Image string `json:"image,omitempty"`
}

// DeleteData is the data of volume.delete and volume.release. Owner must be the volume's owner; one that names an owner
// succeeds also when the volume is gone already.
type DeleteData struct {
	Owner events.Stream `json:"owner,omitempty"`
}

// ResizeData is the data of volume.resize. Owner must be the volume's owner.
type ResizeData struct {
	Owner  events.Stream `json:"owner,omitempty"`
	SizeGB int64         `json:"size_gb"` // GiB
}

// CreateRequested is the intent to create; the name is claimed.
type CreateRequested struct {
	events.Intent
	CreateData
	PoolPath string    `json:"pool_path"`
	Node     uuid.UUID `json:"node"`
}

// Created says that the volume exists. Path is where the hypervisor of the node finds it.
type Created struct {
	Type   string `json:"type"` // file or block
	Path   string `json:"path"`
	Format string `json:"format"`
}

// CreateFailed ends a volume that did not come about. Its name is free.
type CreateFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// DeleteRequested is the intent to delete.
type DeleteRequested struct{ events.Intent }

// DeleteFailed says that the volume is still there.
type DeleteFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// Deleted ends a volume. Its name is free.
type Deleted struct{}

// ResizeRequested is the intent to make the volume larger.
type ResizeRequested struct {
	events.Intent
	SizeGB int64 `json:"size_gb"` // GiB
}

// Resized says how large the volume is.
type Resized struct {
	SizeGB int64 `json:"size_gb"` // GiB
}

// ResizeFailed says that the volume is as large as it was.
type ResizeFailed struct {
	Problem *problem.Problem `json:"problem"`
}

// Released says that the volume has no owner any more.
type Released struct{}

// Codec of volumes.
var Codec = events.NewCodec(Kind,
	events.TypeOf[CreateRequested]("volume.create_requested"),
	events.TypeOf[Created]("volume.created"),
	events.TypeOf[CreateFailed]("volume.create_failed"),
	events.TypeOf[DeleteRequested]("volume.delete_requested"),
	events.TypeOf[DeleteFailed]("volume.delete_failed"),
	events.TypeOf[Deleted]("volume.deleted"),
	events.TypeOf[Released]("volume.released"),
	events.TypeOf[ResizeRequested]("volume.resize_requested"),
	events.TypeOf[Resized]("volume.resized"),
	events.TypeOf[ResizeFailed]("volume.resize_failed"),
)
