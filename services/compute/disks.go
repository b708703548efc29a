package compute

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"horcrux/pkg/events"
	"horcrux/pkg/events/operation"
	wire "horcrux/pkg/events/vm"
	"horcrux/pkg/events/volume"
	"horcrux/services/compute/vm"
)

// The names of the steps of what changes a disk.
const (
	volumeStep = "volume"
	changeStep = "machine"
)

// makeVolume is the step that makes the volume of a disk, and takes it back.
func makeVolume(step string, storage events.Address, owner events.Stream, d wire.Disk) operation.StepPlan {
	image := ""
	if d.Image != nil {
		image = *d.Image
	}
	return operation.StepPlan{
		Name: step,
		Do: operation.Call{To: storage, Type: "volume.create", Target: d.VolumeID, Data: data(volume.CreateData{
			Pool: d.PoolID, Name: d.VolumeName, SizeGB: d.SizeGB, Format: d.Format, Thin: true, Owner: owner, Image: image,
		})},
		Undo: &operation.Call{To: storage, Type: "volume.delete", Target: d.VolumeID, Data: data(volume.DeleteData{Owner: owner})},
	}
}

// decodeChangeDisk takes the source of a disk that is attached from the result of the step that made its volume.
func decodeChangeDisk(c events.Command) (any, error) {
	change := vm.ChangeDisk{Intent: c.Intent()}
	raw, ok := c.Inputs[volumeStep]
	if !ok {
		return change, nil
	}
	var v volume.Created
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("result of step %s: %w", volumeStep, err)
	}
	if v.Path != "" { // another result of a volume has none
		change.Source = &wire.Source{Type: v.Type, Path: v.Path, Format: v.Format}
	}
	return change, nil
}

// diskPlan is what the plans about a disk are made of.
type diskPlan struct {
	self, storage events.Address
	owner         events.Stream
	change        operation.StepPlan // of the machine
}

func newDiskPlan(c events.Command, m vm.Machine) diskPlan {
	p := diskPlan{
		self: events.Address{Domain: Domain, Node: m.Node.String()}, storage: events.Address{Domain: "storage", Node: m.Node.String()},
		owner: c.Stream(),
	}
	p.change = operation.StepPlan{Name: changeStep, Do: operation.Call{To: p.self, Type: "vm.change_disk", Target: c.Target}, NoReturn: true}
	return p
}

// disk is the one of a name that the machine has now.
func disk(m vm.Machine, name string) wire.Disk {
	for _, d := range m.Spec.Disks {
		if d.Name == name {
			return d
		}
	}
	return wire.Disk{}
}

// planAttachDisk: the volume, which is taken back when the hypervisor does not take it; then the machine.
func planAttachDisk(c events.Command, m vm.Machine) []operation.StepPlan {
	p := newDiskPlan(c, m)
	return []operation.StepPlan{makeVolume(volumeStep, p.storage, p.owner, *m.Disk.Attach), p.change}
}

// planDetachDisk: the machine, after which there is no way back; then the volume, or its release.
func planDetachDisk(c events.Command, m vm.Machine) []operation.StepPlan {
	p := newDiskPlan(c, m)
	steps := []operation.StepPlan{p.change}
	d := disk(m, m.Disk.Detach)
	if d.VolumeID == uuid.Nil {
		return steps // of a machine that was adopted: the file is somebody else's
	}
	verb := "volume.delete"
	if m.Disk.Keep {
		verb = "volume.release"
	}
	return append(steps, operation.StepPlan{
		Name: volumeStep,
		Do:   operation.Call{To: p.storage, Type: verb, Target: d.VolumeID, Data: data(volume.DeleteData{Owner: p.owner})},
	})
}

// planResizeDisk: QEMU grows the volume of a guest that runs, the storage that of one that does not; either way the
// storage records what it then finds.
func planResizeDisk(c events.Command, m vm.Machine) []operation.StepPlan {
	p := newDiskPlan(c, m)
	d := disk(m, m.Disk.Resize)
	if d.VolumeID == uuid.Nil {
		return []operation.StepPlan{p.change}
	}
	volume := operation.StepPlan{
		Name: volumeStep,
		Do: operation.Call{To: p.storage, Type: "volume.resize", Target: d.VolumeID, Data: data(volume.ResizeData{
			Owner: p.owner, SizeGB: m.Disk.SizeGB,
		})},
	}
	if m.Disk.Running {
		return []operation.StepPlan{p.change, volume}
	}
	p.change.NoReturn, volume.NoReturn = false, true
	return []operation.StepPlan{volume, p.change}
}
