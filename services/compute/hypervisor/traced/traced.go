// Package traced shows each call of a hypervisor as a span of the trace that it was made in.
package traced

import (
	"context"

	"github.com/google/uuid"

	"horcrux/pkg/trace"
	"horcrux/services/compute/hypervisor"
)

// Driver is a driver whose calls are spans. It is the driver itself in all else.
func Driver(d hypervisor.Driver) hypervisor.Driver { return driver{d} }

type driver struct{ hypervisor.Driver }

// known are the words for a failure; what the hypervisor said may hold anything and is for the log.
var known = []error{
	hypervisor.ErrNotFound, hypervisor.ErrAlreadyExists, hypervisor.ErrConflict, hypervisor.ErrBusy, hypervisor.ErrInvalid,
	hypervisor.ErrUnsupported, hypervisor.ErrUnavailable, hypervisor.ErrExhausted, hypervisor.ErrPermission, hypervisor.ErrUnknown,
}

// span makes one call, over a machine unless id is uuid.Nil.
func span(ctx context.Context, name string, id uuid.UUID, call func(context.Context) error) error {
	var about []string
	if id != uuid.Nil {
		about = []string{"horcrux.vm", id.String()}
	}
	ctx, s := trace.Start(ctx, trace.Client, "hypervisor "+name, about...)
	err := call(ctx)
	s.End(err, known...)
	return err
}

// answer is span for a call that returns something.
func answer[T any](ctx context.Context, name string, id uuid.UUID, call func(context.Context) (T, error)) (v T, err error) {
	err = span(ctx, name, id, func(ctx context.Context) (err error) {
		v, err = call(ctx)
		return err
	})
	return v, err
}

// change is span for a call that takes a machine's id and nothing else.
func change(ctx context.Context, name string, id uuid.UUID, call func(context.Context, uuid.UUID) error) error {
	return span(ctx, name, id, func(ctx context.Context) error { return call(ctx, id) })
}

func (d driver) Info(ctx context.Context) (hypervisor.Info, error) {
	return answer(ctx, "Info", uuid.Nil, d.Driver.Info)
}

func (d driver) Networks(ctx context.Context) ([]string, error) {
	return answer(ctx, "Networks", uuid.Nil, d.Driver.Networks)
}

func (d driver) Define(ctx context.Context, spec hypervisor.Spec) (hypervisor.Domain, error) {
	return answer(ctx, "Define", spec.ID, func(ctx context.Context) (hypervisor.Domain, error) { return d.Driver.Define(ctx, spec) })
}

func (d driver) Undefine(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Undefine", id, d.Driver.Undefine)
}

func (d driver) Start(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Start", id, d.Driver.Start)
}

func (d driver) Destroy(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Destroy", id, d.Driver.Destroy)
}

func (d driver) Shutdown(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Shutdown", id, d.Driver.Shutdown)
}

func (d driver) Pause(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Pause", id, d.Driver.Pause)
}

func (d driver) Resume(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Resume", id, d.Driver.Resume)
}

func (d driver) Reset(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Reset", id, d.Driver.Reset)
}

func (d driver) Reboot(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Reboot", id, d.Driver.Reboot)
}

func (d driver) Configure(ctx context.Context, spec hypervisor.Spec) error {
	return span(ctx, "Configure", spec.ID, func(ctx context.Context) error { return d.Driver.Configure(ctx, spec) })
}

func (d driver) Adjust(ctx context.Context, spec hypervisor.Spec) error {
	return span(ctx, "Adjust", spec.ID, func(ctx context.Context) error { return d.Driver.Adjust(ctx, spec) })
}

func (d driver) Adopt(ctx context.Context, id uuid.UUID) error {
	return change(ctx, "Adopt", id, d.Driver.Adopt)
}

func (d driver) Describe(ctx context.Context, id uuid.UUID, seen uint64) (hypervisor.Description, error) {
	return answer(ctx, "Describe", id, func(ctx context.Context) (hypervisor.Description, error) { return d.Driver.Describe(ctx, id, seen) })
}

func (d driver) Snapshot(ctx context.Context, id uuid.UUID, snap hypervisor.Snapshot) error {
	return span(ctx, "Snapshot", id, func(ctx context.Context) error { return d.Driver.Snapshot(ctx, id, snap) })
}

func (d driver) RestoreSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	return span(ctx, "RestoreSnapshot", id, func(ctx context.Context) error { return d.Driver.RestoreSnapshot(ctx, id, name) })
}

func (d driver) DeleteSnapshot(ctx context.Context, id uuid.UUID, name string) error {
	return span(ctx, "DeleteSnapshot", id, func(ctx context.Context) error { return d.Driver.DeleteSnapshot(ctx, id, name) })
}

func (d driver) Snapshots(ctx context.Context, id uuid.UUID) ([]hypervisor.Snapshot, error) {
	return answer(ctx, "Snapshots", id, func(ctx context.Context) ([]hypervisor.Snapshot, error) { return d.Driver.Snapshots(ctx, id) })
}

func (d driver) SetAutostart(ctx context.Context, id uuid.UUID, on bool) error {
	return span(ctx, "SetAutostart", id, func(ctx context.Context) error { return d.Driver.SetAutostart(ctx, id, on) })
}

func (d driver) SetDescription(ctx context.Context, id uuid.UUID, text string) error {
	return span(ctx, "SetDescription", id, func(ctx context.Context) error { return d.Driver.SetDescription(ctx, id, text) })
}

func (d driver) Domain(ctx context.Context, id uuid.UUID) (hypervisor.Domain, error) {
	return answer(ctx, "Domain", id, func(ctx context.Context) (hypervisor.Domain, error) { return d.Driver.Domain(ctx, id) })
}

func (d driver) Domains(ctx context.Context) ([]hypervisor.Domain, error) {
	return answer(ctx, "Domains", uuid.Nil, d.Driver.Domains)
}

// Watch is the call that begins to watch: what is seen after it was asked for by nobody. The driver gets ctx as it is,
// since it watches for longer than the span lasts.
func (d driver) Watch(ctx context.Context) (<-chan hypervisor.Change, error) {
	return answer(ctx, "Watch", uuid.Nil, func(context.Context) (<-chan hypervisor.Change, error) { return d.Driver.Watch(ctx) })
}
