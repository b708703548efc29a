package volume

import (
	"fmt"
	"regexp"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	wire "horcrux/pkg/events/volume"
	"horcrux/pkg/problem"
)

// GiB in bytes.
const GiB = 1 << 30

// maxSizeGB is the largest volume in GiB.
const maxSizeGB = 64 << 10

// The commands.
type (
	// Create accepts a new volume of this node's pool. NewCreate makes it; PoolPath and Node are looked up after.
	Create struct {
		events.Intent
		wire.CreateData
		PoolPath string
		Node     uuid.UUID
	}
	// Delete accepts the end of a volume, which only its owner may ask for while that lives.
	Delete struct {
		events.Intent
		wire.DeleteData
		// Ended is an owner that was looked up and found to be no more, "" for none.
		Ended events.Stream
	}
	// Resize makes a volume larger, which only its owner may ask for.
	Resize struct {
		events.Intent
		wire.ResizeData
	}
	// Release lets an owner leave its volume behind.
	Release struct{ wire.DeleteData }
)

// The facts.
type (
	// Made: the volume is in the storage.
	Made struct{ wire.Created }
	// Removed: it is not there any more.
	Removed struct{}
	// Grown: it has the size that was asked for.
	Grown struct{}
	// Failed: the effect of the intent came to nothing.
	Failed struct{ Problem *problem.Problem }
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// NewCreate checks what a request says. What is wrong is an invalid_value that names the fields.
func NewCreate(i events.Intent, d wire.CreateData) (Create, error) {
	var fields []problem.Field
	refuse := func(field, detail string) { fields = append(fields, problem.Field{Field: field, Detail: detail}) }
	if !namePattern.MatchString(d.Name) {
		refuse("name", "must be 1 to 63 of a-z, 0-9 and -, and begin and end with a letter or digit")
	} else if _, err := uuid.Parse(d.Name); err == nil {
		refuse("name", "must not look like an id")
	}
	if d.Pool == uuid.Nil {
		refuse("pool", "is required")
	}
	if d.SizeGB < 1 || d.SizeGB > maxSizeGB {
		refuse("size_gb", fmt.Sprintf("must be 1 to %d", maxSizeGB))
	}
	if d.Format != "raw" && d.Format != "qcow2" {
		refuse("format", "must be raw or qcow2")
	}
	if d.Owner != "" && (d.Owner.Kind() == "" || d.Owner.ID() == uuid.Nil || d.Owner != events.NewStream(d.Owner.Kind(), d.Owner.ID())) {
		refuse("owner", "must be a kind and an id: vm/<id>")
	}
	if fields != nil {
		return Create{}, problem.Invalid(fields...)
	}
	return Create{Intent: i, CreateData: d}, nil
}

// Decide says what happens.
func Decide(v Volume, c any) ([]any, error) {
	switch c := c.(type) {
	case Create:
		return v.create(c)
	case Delete:
		return v.delete(c)
	case Release:
		return v.release(c)
	case Resize:
		return v.resize(c)
	case Made, Removed, Grown, Failed:
		return v.fact(c), nil
	}
	return nil, fmt.Errorf("no such command: %T", c)
}

func (v Volume) create(c Create) ([]any, error) {
	if p := v.busy(); p != nil {
		return nil, p
	}
	if v.Phase != Absent {
		return nil, problem.New(problem.InvalidState, "there is or was a volume of this id already")
	}
	return []any{wire.CreateRequested{Intent: c.Intent, CreateData: c.CreateData, PoolPath: c.PoolPath, Node: c.Node}}, nil
}

func (v Volume) delete(c Delete) ([]any, error) {
	if gone, err := v.gone(c.DeleteData); gone || err != nil {
		return nil, err
	}
	if v.Owner != "" && v.Owner != c.Owner && v.Owner != c.Ended {
		return nil, problem.New(problem.InUse, "the volume belongs to %s", v.Owner)
	}
	if p := v.busy(); p != nil {
		return nil, p
	}
	return []any{wire.DeleteRequested{Intent: c.Intent}}, nil
}

func (v Volume) resize(c Resize) ([]any, error) {
	if p := v.busy(); p != nil {
		return nil, p
	}
	switch {
	case v.Phase != Available:
		return nil, problem.New(problem.NotFound, "there is no such volume")
	case v.Owner != c.Owner:
		return nil, problem.New(problem.InUse, "the volume belongs to %s", v.Owner)
	case c.SizeGB > maxSizeGB:
		return nil, problem.Invalid(problem.Field{Field: "size_gb", Detail: fmt.Sprintf("must be 1 to %d", maxSizeGB)})
	case c.SizeGB <= v.SizeGB:
		return nil, nil // a volume only grows, and a process may repeat its steps
	}
	return []any{wire.ResizeRequested{Intent: c.Intent, SizeGB: c.SizeGB}}, nil
}

func (v Volume) release(c Release) ([]any, error) {
	if gone, err := v.gone(c.DeleteData); gone || err != nil {
		return nil, err
	}
	switch {
	case v.Owner == "":
		return nil, nil
	case v.Owner != c.Owner:
		return nil, problem.New(problem.InUse, "the volume belongs to %s", v.Owner)
	}
	if p := v.busy(); p != nil {
		return nil, p
	}
	return []any{wire.Released{}}, nil
}

// gone says whether an owner asks for what ended before, which then is no news: a process that failed half-way repeats
// its steps. To everybody else a volume that is gone is not found.
func (v Volume) gone(d wire.DeleteData) (bool, error) {
	switch {
	case v.Phase == Ended && d.Owner != "":
		return true, nil
	case v.Phase == Absent || v.Phase == Ended:
		return false, problem.New(problem.NotFound, "there is no such volume")
	}
	return false, nil
}

// fact ends the effect under way. Where none is, or another, it is no news.
func (v Volume) fact(c any) []any {
	switch c := c.(type) {
	case Made:
		if v.Phase == Creating {
			return []any{c.Created}
		}
	case Grown:
		if v.Phase == Growing {
			return []any{wire.Resized{SizeGB: v.WantGB}}
		}
	case Removed:
		if v.Phase == Deleting {
			return []any{wire.Deleted{}}
		}
	case Failed:
		switch v.Phase {
		case Creating:
			return []any{wire.CreateFailed{Problem: c.Problem}}
		case Growing:
			return []any{wire.ResizeFailed{Problem: c.Problem}}
		case Deleting:
			return []any{wire.DeleteFailed{Problem: c.Problem}}
		}
	}
	return nil
}
